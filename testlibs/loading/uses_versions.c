// References to both versions of a needed library's symbol, and to its newest.
#include "check.h"
int old(void), current(void), number(void);
__asm__(".symver old, number@TEST_1");
__asm__(".symver current, number@TEST_2");
int run(void) {
    CHECK(old() == 1 && current() == 2 && number() == 2);
    return 42;
}
