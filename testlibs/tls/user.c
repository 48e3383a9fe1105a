// Uses thread-local variables that another library defines.
#include "check.h"
extern _Thread_local int shared, shared_zero;
extern _Thread_local int nobody_defines_this __attribute__((weak));
int *address_of_shared(void), change_shared(int);

int *seen_address(void) { return &shared; }
int *weak_address(void) { return &nobody_defines_this; }

int run(void) {
    CHECK(&shared == address_of_shared());
    int old = shared, old_zero = shared_zero;
    CHECK(old == 1000 + old_zero);
    CHECK(change_shared(5) == old + 5);
    CHECK(shared == old + 5 && shared_zero == old_zero + 5);
    shared += 1, shared_zero += 1;
    CHECK(change_shared(0) == old + 6);
    return 42;
}
