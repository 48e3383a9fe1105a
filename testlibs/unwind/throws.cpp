// Exceptions inside, out of, into and through a library.
#include <cstring>
#include <exception>
#include <pthread.h>
#include <stdexcept>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>
#define CHECK(condition) do { if (!(condition)) return __LINE__; } while (0)

// What both sides of a border know.
struct Shared : std::exception {
    explicit Shared(int number) : number(number) {}
    int number;
    const char *what() const noexcept override { return "shared"; }
};
static int destroyed;
namespace {
struct Own { int number; };
struct Guard { ~Guard() { ++destroyed; } };
}

__attribute__((noinline)) static void deep(int depth, int what) {
    Guard guard;
    if (depth)
        deep(depth - 1, what), (void)(*(volatile int *)&depth);
    else if (what == 0)
        throw 7;
    else if (what == 1)
        throw Own{8};
    else if (what == 2)
        throw std::runtime_error("nine");
    else if (what == 3)
        throw Shared(10);
    else if (what == 4)
        std::string("x").at(5);
    else
        std::vector<int>().at(static_cast<size_t>(what));
}

extern "C" void throws(int number) { Guard guard; throw Shared(number); }
extern "C" int destroyed_so_far() { return destroyed; }

typedef void (*callback)(void *);

// What `call` throws, as a number; 0 for nothing, -1 for something unknown.
extern "C" int catches(callback call, void *with) {
    try {
        Guard guard;
        call(with);
        return 0;
    } catch (const Shared &shared) {
        return shared.number;
    } catch (const std::exception &error) {
        return std::strcmp(error.what(), "thrown by a constructor") ? -2 : 77;
    } catch (...) {
        return -1;
    }
}

// Lets everything through.
extern "C" void passes(callback call, void *with) {
    Guard guard;
    call(with);
    ++*(volatile int *)&destroyed, --*(volatile int *)&destroyed;
}

// For measurements.
extern "C" int throws_often(int times) {
    int caught = 0;
    for (int i = 0; i < times; i++)
        try { deep(3, 0); } catch (int) { caught++; }
    return caught;
}

static int rethrows() {
    try {
        try { deep(5, 3); } catch (...) { Guard guard; throw; }
    } catch (const Shared &shared) { return shared.number; }
    return 0;
}

static int nested() {
    try {
        try { deep(2, 2); } catch (...) { std::throw_with_nested(Own{12}); }
    } catch (const Own &own) {
        if (own.number != 12) return 1;
        try { std::rethrow_if_nested(own); } catch (...) { return 2; }
        try { throw; } catch (const std::nested_exception &outer) {
            try { outer.rethrow_nested(); } catch (const std::runtime_error &inner) {
                return std::strcmp(inner.what(), "nine") ? 3 : 42;
            }
        }
    }
    return 4;
}

extern "C" int run() {
    destroyed = 0;
    try { deep(5, 0); return 1; } catch (int number) { CHECK(number == 7 && destroyed == 6); }
    try { deep(5, 1); return 1; } catch (const Own &own) { CHECK(own.number == 8 && destroyed == 12); }
    try { deep(0, 2); return 1; } catch (const std::exception &error) { CHECK(!std::strcmp(error.what(), "nine")); }
    // From inside of libstdc++.
    try { deep(1, 4); return 1; } catch (const std::out_of_range &) {}
    try { deep(1, 5); return 1; } catch (const std::logic_error &) {}
    CHECK(rethrows() == 10);
    CHECK(nested() == 42);
    // From thread to thread.
    std::exception_ptr kept;
    std::thread thrower([&kept] {
        try { deep(4, 3); } catch (...) { kept = std::current_exception(); }
    });
    thrower.join();
    CHECK(kept);
    int number = 0;
    std::thread catcher([&] {
        try { std::rethrow_exception(kept); } catch (const Shared &shared) { number = shared.number; }
    });
    catcher.join();
    CHECK(number == 10);
    // Many at once.
    int failures = 0;
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; i++)
        threads.emplace_back([&failures] { if (throws_often(100) != 100) __atomic_fetch_add(&failures, 1, __ATOMIC_SEQ_CST); });
    for (auto &thread : threads)
        thread.join();
    CHECK(failures == 0);
    return 42;
}

// Forced unwinding: destructors and cleanup handlers of frames in this library run.
static int cleaned;
static void clean(void *) { ++cleaned; }
static void *exits(void *) {
    Guard guard;
    pthread_cleanup_push(clean, nullptr);
    try { Guard inner; pthread_exit((void *)5); } catch (const Shared &) {}
    pthread_cleanup_pop(0);
    return nullptr;
}
static void *sleeps(void *flag) {
    Guard guard;
    pthread_cleanup_push(clean, nullptr);
    try {
        Guard inner;
        __atomic_store_n((int *)flag, 1, __ATOMIC_SEQ_CST);
        for (;;) usleep(1000), pthread_testcancel();
    } catch (const Shared &) {}
    pthread_cleanup_pop(0);
    return nullptr;
}
extern "C" int forced() {
    pthread_t thread;
    void *result;
    destroyed = cleaned = 0;
    CHECK(!pthread_create(&thread, nullptr, exits, nullptr) && !pthread_join(thread, &result));
    CHECK(result == (void *)5 && destroyed == 2 && cleaned == 1);
    int flag = 0;
    CHECK(!pthread_create(&thread, nullptr, sleeps, &flag));
    while (!__atomic_load_n(&flag, __ATOMIC_SEQ_CST)) usleep(100);
    CHECK(!pthread_cancel(thread) && !pthread_join(thread, &result));
    CHECK(result == PTHREAD_CANCELED && destroyed == 4 && cleaned == 2);
    return 42;
}
