// Spends processor time where a profiler must name it: in a function that is exported, in one of
// C++ that is not, and in one that the dynamic symbols do not tell of.
#include <time.h>

static long now() {
    timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static volatile unsigned long sink;

namespace work {
struct item {
    unsigned long value;
};

// Spins for a while without calling anything.
__attribute__((noinline)) void turn(item &item) {
    for (unsigned long i = 0; i < 2000000; i++) sink = item.value + i; // the line that is hot
}
} // namespace work

__attribute__((noinline)) static void hidden_turn(unsigned long value) {
    for (unsigned long i = 0; i < 2000000; i++) sink = value * i;
}

extern "C" __attribute__((noinline)) void exported_turn(unsigned long value) {
    for (unsigned long i = 0; i < 2000000; i++) sink = value ^ i;
}

// Half of the time or so in each of them, for so many milliseconds of the thread's time.
extern "C" int spin(int milliseconds) {
    long end = now() + milliseconds;
    work::item item = {1};
    while (now() < end) {
        work::turn(item);
        hidden_turn(item.value);
        exported_turn(item.value++);
    }
    return static_cast<int>(sink & 0);
}
