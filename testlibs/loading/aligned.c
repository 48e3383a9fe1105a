// Data with the alignment that the segments have.
#include "check.h"
#include <stdint.h>

__attribute__((aligned(ALIGNMENT))) int aligned = 1;
static __attribute__((aligned(ALIGNMENT))) int zero;
int *pointer = &aligned;

int run(void) {
    CHECK((uintptr_t)&aligned % ALIGNMENT == 0);
    CHECK((uintptr_t)&zero % ALIGNMENT == 0 && zero == 0);
    CHECK(*pointer == 1);
    return 42;
}
