// Uses thread-local variables of the executable.
#include "check.h"
#include <errno.h>
#include <stdint.h>
extern _Thread_local int host_variable, host_zeroes[100];
extern _Thread_local char host_aligned[64];
int *address_in_host(void);

int run(void) {
    CHECK(&host_variable == address_in_host());
    CHECK(host_variable == 500 && host_zeroes[99] == 0);
    CHECK((uintptr_t)host_aligned % 64 == 0 && host_aligned[0] == 'h');
    host_variable++, host_zeroes[99]++, host_aligned[0]++;
    CHECK(*address_in_host() == 501);
    host_variable--, host_zeroes[99]--, host_aligned[0]--;
    errno = 77;
    return 42;
}
