// Every kind of segment, and a look at the process's own mappings from inside a constructor: no
// page may be writable and executable, and RELRO is read-only by then.
#include "check.h"
#include <stdio.h>
#include <stdint.h>
#include <string.h>

static int target;
int *const relro_pointer = &target;
int data = 1;
int zeroes[3000];
const char text[] = "read-only";

static int writable_and_executable, relro_is_writable = -1;

static void look(void) {
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512];
    if (!maps) { writable_and_executable = 1; return; }
    while (fgets(line, sizeof line, maps)) {
        uintptr_t start, end;
        char access[5];
        if (sscanf(line, "%lx-%lx %4s", &start, &end, access) != 3)
            continue;
        if (access[1] == 'w' && access[2] == 'x')
            writable_and_executable++;
        if ((uintptr_t)&relro_pointer >= start && (uintptr_t)&relro_pointer < end)
            relro_is_writable = access[1] == 'w';
    }
    fclose(maps);
}

__attribute__((constructor)) static void construct(void) { look(); }

int run(void) {
    CHECK(writable_and_executable == 0);
#ifdef RELRO
    CHECK(relro_is_writable == 0);
#endif
    CHECK(*relro_pointer == 0 && data == 1 && text[0] == 'r');
    data = zeroes[2999] = target = 2;
    look();
    CHECK(writable_and_executable == 0);
    return 42;
}
