// Asks about itself what a library can ask.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
// What the C library has in two versions.
#ifdef __x86_64__
#define TWICE "realpath"
#define OLD "GLIBC_2.2.5"
#define NEW "GLIBC_2.3"
#else
#define TWICE "fmemopen"
#define OLD "GLIBC_2.17"
#define NEW "GLIBC_2.22"
#endif
#define CHECK(condition) do { if (!(condition)) return __LINE__; } while (0)

int exported_data[5] = {1, 2, 3, 4, 5};
_Thread_local int exported_variable = 6;
int exported_function(int x) { return x + exported_data[0]; }
static __attribute__((noinline)) int hidden_function(int x) { return x * 3; }
int (*volatile hidden_pointer)(int) = hidden_function;

int own_addresses(void) {
    Dl_info info, again;
    CHECK(dladdr((char *)exported_function + 1, &info));
    CHECK(info.dli_sname && !strcmp(info.dli_sname, "exported_function"));
    CHECK(info.dli_saddr == (void *)exported_function && info.dli_fname && *info.dli_fname);
    CHECK(dladdr(&exported_data[3], &again) && !strcmp(again.dli_sname, "exported_data"));
    CHECK(again.dli_saddr == exported_data && again.dli_fbase == info.dli_fbase);
    CHECK(!strcmp(again.dli_fname, info.dli_fname));
    CHECK(!memcmp(info.dli_fbase, ELFMAG, SELFMAG));
    CHECK(dladdr((void *)hidden_pointer, &again) && again.dli_fbase == info.dli_fbase);
    CHECK(!again.dli_sname || strcmp(again.dli_sname, "hidden_function"));

    const ElfW(Sym) *symbol = 0;
    CHECK(dladdr1(exported_data, &again, (void **)&symbol, RTLD_DL_SYMENT));
    CHECK(symbol && symbol->st_size == sizeof exported_data);
    CHECK((char *)info.dli_fbase + symbol->st_value == (char *)exported_data);
    struct link_map *map = 0;
    CHECK(dladdr1(exported_data, &again, (void **)&map, RTLD_DL_LINKMAP));
    CHECK(map && map->l_addr == (uintptr_t)info.dli_fbase && !strcmp(map->l_name, info.dli_fname));
    extern ElfW(Dyn) _DYNAMIC[];
    CHECK(map->l_ld == _DYNAMIC);

    // Somebody else's, and nobody's.
    CHECK(dladdr((void *)dlsym(RTLD_DEFAULT, "fputs"), &again) && strstr(again.dli_fname, "libc"));
    int local;
    CHECK(!dladdr(&local, &again) && !dladdr((void *)16, &again));
    return 42;
}

struct seen { int own, others, after, stop; struct dl_phdr_info info; };
static int visit(struct dl_phdr_info *info, size_t size, void *data) {
    struct seen *seen = data;
    if (size < sizeof *info)
        return 7;
    int own = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        uintptr_t start = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
        if (info->dlpi_phdr[i].p_type == PT_LOAD && (uintptr_t)exported_data - start < info->dlpi_phdr[i].p_memsz)
            own = 1;
    }
    if (own)
        seen->own++, seen->info = *info;
    else
        seen->others++;
    return own && seen->stop ? 5 : 0;
}
// Gives its program headers, as listed.
int listed(const void **headers, int *count) {
    struct seen seen = {0};
    // A thread may have no block before it needs one.
    exported_variable++;
    CHECK(dl_iterate_phdr(visit, &seen) == 0);
    CHECK(seen.own == 1 && seen.others >= 3);
    CHECK(seen.info.dlpi_name && seen.info.dlpi_tls_modid);
    CHECK((uintptr_t)&exported_variable - (uintptr_t)seen.info.dlpi_tls_data < 64);
    *headers = seen.info.dlpi_phdr, *count = seen.info.dlpi_phnum;
    seen.stop = 1;
    CHECK(dl_iterate_phdr(visit, &seen) == 5);
    return 42;
}

// It defines a name that the C library has too.
int getppid_calls;
pid_t getppid(void) { return ++getppid_calls, -5; }
int looks_up(void) {
    CHECK(dlsym(RTLD_DEFAULT, "exported_data") == exported_data);
    void *libc = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
    CHECK(libc);
    CHECK(dlsym(RTLD_DEFAULT, "fputs") == dlsym(libc, "fputs"));
    CHECK(dlsym(RTLD_NEXT, "fputs") == dlsym(libc, "fputs"));
    // The executable's libraries come first; after this one comes the C library, again.
    CHECK(dlsym(RTLD_DEFAULT, "getppid") == dlsym(libc, "getppid"));
    CHECK(dlsym(RTLD_NEXT, "getppid") == dlsym(libc, "getppid"));
    CHECK(dlvsym(RTLD_DEFAULT, TWICE, NEW) == dlvsym(libc, TWICE, NEW));
    CHECK(dlvsym(RTLD_NEXT, TWICE, OLD) == dlvsym(libc, TWICE, OLD));
    CHECK(dlvsym(libc, TWICE, OLD) != dlvsym(libc, TWICE, NEW));
    CHECK(!dlerror());
    CHECK(!dlvsym(RTLD_DEFAULT, "realpath", "GLIBC_1.1") && dlerror());
    CHECK(!dlsym(RTLD_NEXT, "exported_data"));
    CHECK(dlerror());
    CHECK(!dlsym(RTLD_DEFAULT, "nobody_has_this"));
    const char *text = dlerror();
    CHECK(text && strstr(text, "undefined symbol: nobody_has_this"));
    CHECK(!dlerror());
    CHECK(!dlsym(libc, "nor_this") && strstr(dlerror(), "nor_this") && !dlerror());
    // Each thread's variable.
    CHECK(dlsym(RTLD_DEFAULT, "exported_variable") == &exported_variable);
    CHECK(dlclose(libc) == 0);
    return 42;
}

int opens(void) {
    void *self = dlopen(0, RTLD_NOW);
    CHECK(self && dlsym(self, "fputs") == dlsym(RTLD_DEFAULT, "fputs"));
    CHECK(!dlclose(self));
    void *math = dlopen("libm.so.6", RTLD_LAZY | RTLD_LOCAL);
    CHECK(math);
    double (*cosine)(double) = (double (*)(double))dlsym(math, "cos");
    CHECK(cosine && cosine(0) == 1);
    CHECK(dlclose(math) == 0);
    CHECK(!dlopen("/nowhere/libnothing.so", RTLD_NOW));
    const char *text = dlerror();
    CHECK(text && strstr(text, "/nowhere/libnothing.so"));
    CHECK(!dlerror());
    CHECK(!dlopen("libnothing-of-this-name.so", RTLD_NOW) && strstr(dlerror(), "libnothing-of-this-name"));
    return 42;
}

#ifdef DLFO_STRUCT_HAS_EH_DBASE
int finds(void) {
    struct dl_find_object found;
    memset(&found, 1, sizeof found);
    CHECK(_dl_find_object((void *)exported_function, &found) == 0);
    CHECK((char *)found.dlfo_map_start <= (char *)exported_function && (char *)exported_data < (char *)found.dlfo_map_end);
    CHECK(found.dlfo_link_map && found.dlfo_eh_frame && found.dlfo_flags == 0);
    CHECK((char *)found.dlfo_eh_frame > (char *)found.dlfo_map_start && (char *)found.dlfo_eh_frame < (char *)found.dlfo_map_end);
    CHECK(*(unsigned char *)found.dlfo_eh_frame == 1);
    int local;
    CHECK(_dl_find_object(&local, &found) == -1);
    CHECK(_dl_find_object((void *)dlsym(RTLD_DEFAULT, "fputs"), &found) == 0);
    return 42;
}
#endif

static int *forks;
static void before(void) { forks[0]++; }
static void in_parent(void) { forks[1]++; }
static void in_child(void) { forks[2]++; }
int handles_forks(int *counts) {
    forks = counts;
    return pthread_atfork(before, in_parent, in_child);
}

int run(void) {
    int result = own_addresses();
    if (result == 42)
        result = looks_up();
    if (result == 42)
        result = opens();
#ifdef DLFO_STRUCT_HAS_EH_DBASE
    if (result == 42)
        result = finds();
#endif
    return result;
}
