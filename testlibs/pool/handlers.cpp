// Objects that are to be destroyed, and functions that are to be called, at the exit or a thread's end.
#include <cstdlib>
#include <pthread.h>

extern "C" void event(int letter);

struct Global {
    Global() { event('G'); }
    ~Global() { event('g'); }
} global;

struct Local {
    int fresh = 1;
    Local() { event('L'); }
    ~Local() { event('l'); }
};

struct OfThread {
    int fresh = 1;
    OfThread() { event('T'); }
    ~OfThread() { event(fresh ? '!' : 't'); }
};

#ifdef IN_CONSTRUCTOR
static thread_local OfThread early;
__attribute__((constructor)) static void construct() { early.fresh = 0; }
extern "C" int early_is_fresh() { return early.fresh; }
#endif

// A number, so that what is used twice shows.
extern "C" int local() {
    static Local local;
    return local.fresh++;
}

extern "C" int of_thread() {
    static thread_local OfThread object;
    int fresh = object.fresh;
    object.fresh = 0;
    return fresh;
}

extern "C" int at_exit() {
    return std::atexit([] { event('1'); }) | std::atexit([] { event('2'); })
         | std::at_quick_exit([] { event('Q'); });
}

extern "C" int at_fork() {
    return pthread_atfork([] { event('P'); }, nullptr, nullptr);
}
