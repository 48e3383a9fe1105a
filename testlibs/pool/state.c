// Data of all sorts, and constructors and destructors that tell the host. `fresh` finds all as it was
// after the constructors, and changes it.
#include "../tls/check.h"
#include <string.h>

extern void event(int letter);

int number = 7;
int zero;
int constructed;
static const char *text = "text";
static int *pointer = &number;
static char small[3 * 4096];
static char filled[3 * 4096] = {1, [4096] = 2};
static char large[1 << 20];

__attribute__((constructor)) static void construct(void) {
    event(number == 7 && zero == 0 && small[5000] == 0 && constructed == 0 ? 'C' : '!');
    constructed++, number = 8, small[5000] = 1, large[700000] = 9;
}

__attribute__((destructor)) static void destruct(void) { event('D'); }

int fresh(void) {
    CHECK(number == 8 && zero == 0 && constructed == 1 && pointer == &number && !strcmp(text, "text"));
    CHECK(filled[0] == 1 && filled[4096] == 2 && filled[4097] == 0 && filled[3 * 4096 - 1] == 0);
    for (unsigned long i = 0; i < sizeof small; i++)
        CHECK(small[i] == (i == 5000));
    for (unsigned long i = 0; i < sizeof large; i += 4000)
        CHECK(large[i] == 9 * (i == 700000));
    number = 100, zero = 1, pointer = &zero, text = "other";
    memset(small, 3, sizeof small), memset(filled, 4, sizeof filled);
    large[0] = large[400000] = large[700000] = large[sizeof large - 4096] = 5;
    return 42;
}
