// The tiny library of the benchmarks: one exported function, a helper, a global, and an import
// from the C library. It prints nothing, since it is called in each round.
#include <stdlib.h>

int foo_calls = 0;

static int helper(int value, int factor) {
    int product = value * factor;
    foo_calls++;
    return product;
}

int foo(int number) {
    unsigned seed = (unsigned)helper(number, 2);
    return rand_r(&seed);
}
