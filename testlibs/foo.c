// The library of the example: one exported function, a helper that it calls, a global, a
// thread-local, and output through the C library.
#include <stdio.h>

int foo_calls = 0;
_Thread_local int foo_thread_calls = 100;

static int helper(int value, int factor) {
    int product = value * factor;
    foo_calls++;
    foo_thread_calls++;
    return product;
}

int foo(int number) {
    int result = helper(number, 2);
    printf("foo(%d): call %d, of this thread %d\n", number, foo_calls, foo_thread_calls);
    fflush(stdout);
    return result;
}
