// Something of everything that a load, a thread and an unload have to do with.
#include <dlfcn.h>
#include <execinfo.h>
#include <link.h>
#include <memory>
#include <stdexcept>
#include <stdint.h>
#include <string>
#define CHECK(condition) do { if (!(condition)) return __LINE__; } while (0)

typedef void (*callback)(void *);

static thread_local std::string mine = "an initial value that lies on the heap";
static thread_local int block[2000];
static std::string whole(3000, 'x');
static std::unique_ptr<int> number(new int(7));
static int zero[3000];

struct Guard {
    int &count;
    explicit Guard(int &count) : count(count) { ++count; }
    ~Guard() { --count; }
};

struct Thrown : std::exception {
    int number;
    explicit Thrown(int number) : number(number) {}
};

// Calls `call` below some frames of this library.
extern "C" __attribute__((noinline)) void through(callback call, void *with, int depth) {
    int count = 0;
    Guard guard(count);
    if (depth)
        through(call, with, depth - 1);
    else
        call(with);
    __asm__ volatile("" : : "r"(&count) : "memory");
}

extern "C" void throws(void *number) { throw Thrown(*static_cast<int *>(number)); }

// What `call` throws, as a number; 0 for nothing, -1 for something that another image calls Thrown.
extern "C" int catches(callback call, void *with) {
    try {
        through(call, with, 3);
        return 0;
    } catch (const Thrown &thrown) {
        return thrown.number;
    } catch (const std::exception &) {
        return -1;
    }
}

// How many frames `backtrace` finds from here.
extern "C" int frames() {
    void *addresses[64];
    return backtrace(addresses, 64);
}

static int objects() {
    struct Seen { int all, own; } seen = {0, 0};
    dl_iterate_phdr([](dl_phdr_info *info, size_t, void *with) {
        Seen *seen = static_cast<Seen *>(with);
        seen->all++;
        for (int i = 0; i < info->dlpi_phnum; i++) {
            const ElfW(Phdr) &header = info->dlpi_phdr[i];
            uintptr_t offset = reinterpret_cast<uintptr_t>(zero) - info->dlpi_addr - header.p_vaddr;
            seen->own += header.p_type == PT_LOAD && offset < header.p_memsz;
        }
        return 0;
    }, &seen);
    return seen.all > 3 && seen.own == 1;
}

extern "C" int run() {
    CHECK(mine == "an initial value that lies on the heap" && block[1999] == 0);
    CHECK(*number == 7 && whole.size() == 3000 && zero[2999] == 0);
    int value = 5;
    CHECK(catches(throws, &value) == 5);
    CHECK(catches([](void *) {}, nullptr) == 0);
    CHECK(objects());
    Dl_info info;
    CHECK(dladdr(reinterpret_cast<void *>(frames), &info) && info.dli_fbase);
    CHECK(frames() > 2);
    void *self = dlopen(nullptr, RTLD_NOW);
    CHECK(self && !dlclose(self));
    // As it was, for the next call in this thread, on the heap.
    mine = std::string("an initial value that lies") + " on the heap";
    return 42;
}
