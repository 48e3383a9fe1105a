// An image with code, data, relocated data and `.bss`, for a process that forks.
#include <stdlib.h>

#ifndef BSS
#define BSS 100000
#endif
#ifndef PAD
#define PAD 10
#endif

static int data[20000] = {1, 2, 3};
static const char *volatile names[3000] = {"a", "b"};
static int bss[BSS];
static volatile char pad[PAD] = {1};

int run(void) {
    data[5]++;
    bss[7]++;
    bss[BSS - 1] = bss[7];
    int is_right = data[0] == 1 && data[5] == bss[BSS - 1] && names[1][0] == 'b' && pad[0] == 1;
    return is_right && abs(-3) == 3 ? 42 : 1;
}
