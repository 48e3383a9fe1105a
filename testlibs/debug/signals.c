// What a debugger is shown of signals that a library handles, raises and dies of. The marks are
// where tests set breakpoints.
#include <signal.h>
#include <stdlib.h>

volatile int handled = 0;

static void handler(int number) {
    handled += number; // MARK handler
}

__attribute__((noinline)) int raises(int number) {
    raise(number); // MARK raises
    return handled;
}

__attribute__((noinline)) int crashes(int *where) {
    return *where; // MARK crashes
}

int entry(int n) {
    signal(SIGUSR1, handler);
    return n + raises(SIGUSR1); // MARK entry
}

int crash(int n) {
    return n + crashes(0);
}

int give_up(int n) {
    if (n)
        abort(); // MARK aborts
    return n;
}
