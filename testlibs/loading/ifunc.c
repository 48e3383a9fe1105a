// IFUNCs: an exported one, and a local one that is reached by IRELATIVE. The resolver of the
// second looks at relocated data.
#include "check.h"
static int one(void) { return 1; }
static int two(void) { return 2; }
static int choice = 2;
int *volatile choice_pointer = &choice;
static int (*resolve_exported(void))(void) { return one; }
static int (*resolve_local(void))(void) { return *choice_pointer == 2 ? two : one; }
int exported(void) __attribute__((ifunc("resolve_exported")));
static int local(void) __attribute__((ifunc("resolve_local")));
int (*pointer)(void) = local;
int run(void) {
    CHECK(exported() == 1);
    CHECK(local() == 2 && pointer() == 2);
    return 42;
}
