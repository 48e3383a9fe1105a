// Symbols of all bindings and visibilities, and absolute ones.
//# flags: -Wl,--defsym=absolute=0x1234
#include "check.h"
#include <stdint.h>

__attribute__((weak)) extern int undefined_function(void);
__attribute__((weak)) extern int undefined_data;
__attribute__((weak)) extern _Thread_local int undefined_thread_local;
__attribute__((weak)) int weak_function(void) { return 1; }
__attribute__((visibility("protected"))) int protected_function(void) { return 2; }
__attribute__((visibility("hidden"))) int hidden_function(void) { return 3; }
static int local_function(void) { return 4; }
int default_function(void) { return 5; }
extern char absolute[];

int (*const pointers[])(void) = {
    undefined_function, weak_function, protected_function, hidden_function, local_function,
    default_function,
};

int run(void) {
    CHECK(!undefined_function && !&undefined_data);
    CHECK(!pointers[0]);
    for (int i = 1; i < 6; i++)
        CHECK(pointers[i]() == i);
    CHECK(weak_function() == 1 && protected_function() == 2 && hidden_function() == 3);
    CHECK((uintptr_t)absolute == 0x1234);
    return 42;
}
