// Uses what each segment of a library gives: data, zeroes, relocated words, thread-locals, a constructor.
#include <string.h>

static int zeroes[5000];
static _Thread_local int local = 5;
static _Thread_local int local_zeroes[100];
int data[2000] = {1, 2, 3};
const char *const names[] = {"a", "bc"};
int *word = &data[1];
static int constructed;

__attribute__((constructor)) static void construct(void) { constructed = 7; }

#ifdef ALIGNED
__attribute__((section(".aligned_text"), aligned(8192), noinline)) int aligned_code(void) { return 1; }
int aligned_data[3] __attribute__((aligned(8192))) = {4, 5, 6};
#endif

int run(void) {
    if (local != 5 || *word != 2 || data[2] != 3 || data[1999] != 0 || strcmp(names[1], "bc")) return 1;
    for (int i = 0; i < 5000; i++)
        if (zeroes[i]) return 2;
    for (int i = 0; i < 100; i++)
        if (local_zeroes[i]) return 3;
    if (constructed != 7) return 4;
    zeroes[4999] = data[1999] = local = local_zeroes[99] = 1;
#ifdef ALIGNED
    if ((unsigned long)aligned_code % 8192 || (unsigned long)aligned_data % 8192) return 5;
    if (aligned_code() != 1 || aligned_data[2] != 6) return 6;
#endif
    return 42;
}
