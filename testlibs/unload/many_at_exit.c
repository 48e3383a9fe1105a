// Functions for the exit and for `quick_exit`, many.
#include <stdlib.h>
int at_quick_exit(void (*)(void));
static int left;
static void less(void) { left--; }
__attribute__((constructor)) static void construct(void) {
    for (int i = 0; i < 300; i++)
        left += !atexit(less) && !at_quick_exit(less);
}
int run(void) { return left == 300 ? 42 : left; }
