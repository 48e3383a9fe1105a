// Thread-local variables of all sorts. `fresh` finds initial values and changes them, `used` finds
// what `fresh` left in this thread.
// ALIGNMENT, ROOM: of the aligned variables, and bytes of zeroes.
#include "check.h"
#include <stdint.h>
#include <string.h>
#ifndef ALIGNMENT
#define ALIGNMENT 16
#endif
#ifndef ROOM
#define ROOM 64
#endif

static int target = 5;
_Thread_local int exported = 7;
_Thread_local int exported_zero;
_Thread_local int *relocated = &target;
static _Thread_local int *const *relocated_static = (int *const[]){&target};
static _Thread_local long one = 11, two = 22;
static _Thread_local _Alignas(ALIGNMENT) unsigned char aligned[32] = {1, 2, 3};
static _Thread_local _Alignas(ALIGNMENT) unsigned char aligned_zeroes[32];
static _Thread_local unsigned char zeroes[ROOM];

int *address_of_exported(void) { return &exported; }

static int all_zero(const unsigned char *bytes, unsigned long count) {
    for (unsigned long i = 0; i < count; i += i + 4096 < count ? 4093 : 1)
        if (bytes[i])
            return 0;
    return 1;
}

static int placed(void) {
    CHECK((uintptr_t)aligned % ALIGNMENT == 0 && (uintptr_t)aligned_zeroes % ALIGNMENT == 0);
    CHECK(relocated == &target && *relocated_static == &target && *relocated == 5);
    return 42;
}

int fresh(void) {
    CHECK(placed() == 42);
    CHECK(exported == 7 && exported_zero == 0 && one == 11 && two == 22);
    CHECK(aligned[0] == 1 && aligned[2] == 3 && all_zero(aligned + 3, 29));
    CHECK(all_zero(aligned_zeroes, 32) && all_zero(zeroes, ROOM));
    exported = 107, exported_zero = 108, one = 111, two = 122;
    memset(aligned, 1, 32), memset(aligned_zeroes, 2, 32), zeroes[0] = 3, zeroes[ROOM - 1] = 4;
    return 42;
}

int used(void) {
    CHECK(placed() == 42);
    CHECK(exported == 107 && exported_zero == 108 && one == 111 && two == 122);
    CHECK(aligned[31] == 1 && aligned_zeroes[31] == 2 && zeroes[0] == 3 && zeroes[ROOM - 1] == 4);
    return 42;
}

int run(void) {
    int result = fresh();
    return result == 42 ? used() : result;
}
