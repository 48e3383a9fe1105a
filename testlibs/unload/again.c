/* Data of every kind, and enough that is only read to be shared between instances. */
#include <string.h>

const char filler[1 << 17] = {1};

static int one = 1;
int data = 42;
int *pointer = &data;              /* symbolic */
static int *const fixed = &one;    /* RELRO */
int *const *where = &fixed;        /* relative */
char *(*imported)(const char *, const char *) = strstr;
int zero[1000];
__thread int of_thread = 7;

/* What is not as it is in the file, or 42. */
int fresh(void)
{
    if (one != 1 || data != 42) return 1;
    if (pointer != &data || where != &fixed || *where != &one) return 2;
    if (strcmp(imported("ab", "b"), "b")) return 3;
    for (int i = 0; i < 1000; i++)
        if (zero[i]) return 4;
    if (of_thread != 7) return 5;
    return 42;
}

void spoil(void)
{
    one = data = of_thread = 0;
    pointer = 0;
    where = 0;
    imported = 0;
    memset(zero, 1, sizeof zero);
}

const void *read_only(void) { return &fixed; }
