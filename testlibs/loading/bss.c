// `.bss` is zero: the rest of the last page of the file's data, whatever the file holds behind it,
// then whole pages, and the rest of the last.
#include "check.h"
#include <stdint.h>

char data[100] = { 1 };
char first[17], middle[3 * 4096], last[33];
extern char __bss_start[], _end[];

int run(void) {
    CHECK(data[0] == 1);
    CHECK((uintptr_t)__bss_start % 4096 != 0);
    char *end = (char *)(((uintptr_t)_end + 4095) & -4096);
    CHECK(end - __bss_start > 3 * 4096);
    for (volatile char *byte = __bss_start; byte < end; byte++) {
        CHECK(*byte == 0);
        *byte = 0x55;
    }
    return 42;
}
