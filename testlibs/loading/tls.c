// Thread-local variables of all kinds; `run` is content in a thread that it has not run in yet,
// and each later run in a thread finds what the one before it left there.
#include "check.h"
#include <stdint.h>

_Thread_local int exported = 1;
_Thread_local int exported_zero;
static _Thread_local int local = 2;
static _Thread_local char local_zeroes[5000];
static _Thread_local __attribute__((aligned(256))) char aligned = 3;
static int target = 4;
_Thread_local int *pointer = &target;
static _Thread_local int runs;

int *exported_address(void) { return &exported; }
int runs_of_this_thread(void) { return runs; }

int run(void) {
    if (runs++ == 0) {
        CHECK(exported == 1 && exported_zero == 0 && local == 2 && aligned == 3);
        for (unsigned i = 0; i < sizeof local_zeroes; i++)
            CHECK(local_zeroes[i] == 0);
    } else {
        CHECK(exported == 100 && exported_zero == 101 && local == 102 && aligned == 103);
        CHECK(local_zeroes[4999] == 104);
    }
    CHECK((uintptr_t)&aligned % 256 == 0);
    CHECK(*pointer == 4 && pointer == &target);
    exported = 100, exported_zero = 101, local = 102, aligned = 103, local_zeroes[4999] = 104;
    return 42;
}
