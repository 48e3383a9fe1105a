// The library of the examples in the documentation of the Rust API.
#include <unistd.h>

int foo_calls = 0;
_Thread_local int foo_thread_calls = 100;

static inline __attribute__((always_inline)) int twice(int number) {
    return 2 * number;
}

int foo(int number) {
    foo_calls++;
    foo_thread_calls++;
    return twice(number);
}

int process(void) {
    return getpid();
}

// A host may define it.
__attribute__((weak)) int roll(void);

int play(void) {
    return roll ? roll() : -1;
}
