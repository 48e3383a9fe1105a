/* What memcheck is for: a read behind a block, a block that nobody frees. Or nothing wrong. */
#include <stdlib.h>

static int __attribute__((noinline)) reads_behind(int count) {
    volatile int *block = malloc(sizeof(int) * count);
    int last = block[count]; /* the read */
    free((void *)block);
    return last;
}

static void __attribute__((noinline)) loses(int count) {
    void *volatile block = malloc(1000 * count);
    block = NULL;
}

int errs(int count) {
    loses(count);
    return reads_behind(count) & 0; /* the call */
}

int does_right(int count) {
    int *block = malloc(sizeof(int) * count);
    for (int i = 0; i < count; i++) block[i] = i;
    int last = block[count - 1];
    free(block);
    return last;
}
