// Calls an IFUNC of another library, takes its address, and has it in its data.
#include "check.h"
#include <string.h>
int chosen(void);
int (*pointer)(void) = chosen;
static int (*const table[])(void) = {0, chosen};
int (*taken(void))(void) { return chosen; }
int run(void) {
    CHECK(chosen() == 21 && pointer() == 21 && table[1]() == 21);
    CHECK(taken() == pointer && pointer == table[1]);
    // One of the C library's, by address.
    void *(*volatile copy)(void *, const void *, size_t) = memcpy;
    char text[4];
    CHECK(!strcmp(copy(text, "abc", 4), "abc"));
    return 42;
}
