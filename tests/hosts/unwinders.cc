// A host whose exceptions and backtraces go through a library, by whatever unwinder the host has.
//
//     unwinders WAY STEPS LIBRARY [OTHER...]
//
// WAY is `dlopen` or `memdl`, each letter of STEPS one step. It says what it sees, the same for both ways.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <dlfcn.h>
#include <link.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>
#ifdef NONGNU
#define UNW_LOCAL_ONLY
#include <libunwind.h>
#endif
extern "C" {
#include "memdl.h"
}

typedef void (*Callback)(void *);
typedef int (*Number)();
typedef void (*Throws)(int);
typedef void (*Passes)(Callback, void *);
typedef int (*Catches)(Callback, void *);
typedef int (*Trace)(struct _Unwind_Context *, void *);
extern "C" int _Unwind_Backtrace(Trace, void *);
extern "C" uintptr_t _Unwind_GetIP(struct _Unwind_Context *);

struct Library {
    void *handle = nullptr;
    memdl_library *image = nullptr;
    std::vector<char> bytes;

    Library(const char *way, const char *path) {
        if (!std::strcmp(way, "dlopen")) {
            handle = dlopen(path, RTLD_NOW);
            if (!handle) std::puts(dlerror());
        } else {
            int file = open(path, O_RDONLY);
            struct stat status;
            if (file < 0 || fstat(file, &status)) std::exit(3);
            bytes.resize(static_cast<size_t>(status.st_size));
            if (read(file, bytes.data(), bytes.size()) != status.st_size) std::exit(3);
            close(file);
            image = memdl_open(bytes.data(), bytes.size(), nullptr);
            if (!image) std::puts(memdl_error());
        }
        if (!handle && !image) {
            std::fflush(stdout);
            std::_Exit(2);
        }
    }
    ~Library() {
        if (handle) dlclose(handle);
        if (image) memdl_close(image);
    }
    template <class F> F function(const char *name) {
        void *found = handle ? dlsym(handle, name) : memdl_sym(image, name);
        if (!found) { std::printf("no %s\n", name); std::fflush(stdout); std::_Exit(2); }
        return reinterpret_cast<F>(found);
    }
};

// An unwinder, the host's own or one that was opened.
struct Unwinder {
    decltype(&_Unwind_Backtrace) backtrace = _Unwind_Backtrace;
    decltype(&_Unwind_GetIP) ip = _Unwind_GetIP;
    std::vector<uintptr_t> frames;
};

static int trace(struct _Unwind_Context *context, void *to) {
    auto *unwinder = static_cast<Unwinder *>(to);
    unwinder->frames.push_back(unwinder->ip(context));
    return 0;
}

static void walk(void *to) {
    auto *unwinder = static_cast<Unwinder *>(to);
    unwinder->backtrace(trace, unwinder);
}

static void walks_through(const char *what, Library &library, Unwinder unwinder) {
    auto passes = library.function<Passes>("passes");
    passes(walk, &unwinder);
    std::printf("%s: %zu frames\n", what, unwinder.frames.size());
}

#ifdef NONGNU
static void steps(void *to) {
    unw_context_t context;
    unw_cursor_t cursor;
    unw_getcontext(&context);
    unw_init_local(&cursor, &context);
    do ++*static_cast<int *>(to); while (*static_cast<int *>(to) < 99 && unw_step(&cursor) > 0);
}
#endif

static void throws_through(void *) { throw std::runtime_error("of the host"); }

// Callbacks of profiled steps.
static void works(void *to) {
    volatile long sum = 0;
    for (long i = 0; i < 300000000; i++) sum = sum + i;
    *static_cast<long *>(to) = sum;
}
static void *volatile kept;
static void allocates(void *) {
    // Not freed.
    for (int i = 0; i < 1000; i++) kept = std::malloc(12345);
}

struct Throw { Throws throws; };
static void call_throws(void *with) { static_cast<Throw *>(with)->throws(31); }

int main(int argc, char **argv) {
    if (argc < 4) return 1;
    const char *way = argv[1];
    // The unwinder is at work before anything is loaded.
    if (argv[2][0] == 't') {
        Unwinder unwinder;
        walk(&unwinder);
        try { throws_through(nullptr); } catch (const std::runtime_error &) {}
    }
    Library *library = new Library(way, argv[3]);
    for (const char *step = argv[2]; *step; step++) {
        switch (*step) {
        case 'i':
            std::printf("inside: %d\n", library->function<Number>("run")());
            break;
        case 'f':
            std::printf("forced: %d\n", library->function<Number>("forced")());
            break;
        case 'o':
            try {
                library->function<Throws>("throws")(30);
            } catch (const std::exception &error) {
                std::printf("out: %s\n", error.what());
            }
            break;
        case 'p': {
            int before = library->function<Number>("destroyed_so_far")();
            try {
                library->function<Passes>("passes")(throws_through, nullptr);
            } catch (const std::runtime_error &error) {
                int after = library->function<Number>("destroyed_so_far")();
                std::printf("through: %s, %d destroyed\n", error.what(), after - before);
            }
            break;
        }
        case 'c': {
            Throw with{library->function<Throws>("throws")};
            std::printf("into: %d\n", library->function<Catches>("catches")(call_throws, &with));
            break;
        }
        case 'b':
            walks_through("backtrace", *library, Unwinder());
            break;
#ifdef NONGNU
        case 's': {
            int count = 0;
            library->function<Passes>("passes")(steps, &count);
            std::printf("unw_step: %d frames\n", count);
            break;
        }
#endif
        case 'l': {
            // An unwinder that comes while the library is there.
            void *opened = dlopen(argv[4], RTLD_NOW);
            if (!opened) { std::puts(dlerror()); return 2; }
            Unwinder later;
            later.backtrace = reinterpret_cast<decltype(later.backtrace)>(dlsym(opened, "_Unwind_Backtrace"));
            later.ip = reinterpret_cast<decltype(later.ip)>(dlsym(opened, "_Unwind_GetIP"));
            walks_through("later", *library, later);
            break;
        }
        case 'w': {
            long sum;
            library->function<Passes>("passes")(works, &sum);
            break;
        }
        case 'a':
            library->function<Passes>("passes")(allocates, nullptr);
            break;
        case 'm': {
            // Where `main` is.
            Dl_info info;
            void *found = nullptr;
            dladdr1(reinterpret_cast<void *>(main), &info, &found, RTLD_DL_SYMENT);
            auto *symbol = static_cast<const ElfW(Sym) *>(found);
            std::printf("%p %lu\n", info.dli_saddr, symbol ? static_cast<unsigned long>(symbol->st_size) : 0);
            break;
        }
        case 'n': {
            // Others at the same places, one after the other.
            delete library;
            library = nullptr;
            for (int turn = 0; turn < 4 * (argc - 4); turn++) {
                Library next(way, argv[4 + turn % (argc - 4)]);
                if (next.function<Number>("entry")() != 42) std::puts("next: wrong");
            }
            std::puts("next: done");
            library = new Library(way, argv[3]);
            break;
        }
        }
        std::fflush(stdout);
    }
    delete library;
    return 0;
}
