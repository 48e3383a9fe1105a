/* Calls back into the host, and crashes, where a backtrace must say so. */
typedef void (*callback)(int);

static void __attribute__((noinline)) inner(callback back, int number) {
    back(number + 1); /* calls back */
    __asm__ volatile("");
}

void call_back(callback back, int number) {
    inner(back, number); /* calls inner */
    __asm__ volatile("");
}

static int __attribute__((noinline)) look_at(volatile int *place) {
    return *place; /* crashes */
}

int crash(int *place) {
    return look_at(place) + 1; /* calls look_at */
}
