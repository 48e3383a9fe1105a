// A frame of SIZE bytes: the code is at the same places for each size that takes an instruction of the same length.
#include <stdexcept>
struct Guard { int *destroyed; ~Guard() { ++*destroyed; } };
extern "C" __attribute__((noinline)) void thrower(volatile char *at) {
    at[0] = 1;
    throw std::runtime_error("thrown");
}
extern "C" __attribute__((noinline)) int middle(int *destroyed) {
    Guard guard{destroyed};
    volatile char room[SIZE];
    thrower(room);
    return room[0];
}
extern "C" int entry() {
    int destroyed = 0;
    try { return middle(&destroyed); } catch (const std::exception &) { return destroyed == 1 ? 42 : 7; }
}
