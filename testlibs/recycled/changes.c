// Data of every kind, and code that changes the mappings of the library's own pages, by all the ways that memdl sees.
// PAD: bytes of read-only data.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096
const char filler[PAD] = {1};

typedef char Page[PAGE];
static int data = 42;
static int *const relocated = &data;      // RELRO
static const struct { int *pointer; int plain; } constant = {&data, 7}; // a word of RELRO that nothing relocates
static __attribute__((aligned(PAGE))) Page zeroes[3];
static __thread int of_thread = 7;

__attribute__((noinline)) int answer(void) { return 0x11111111; }

// What is not as it is in the file, or 42.
int fresh(void) {
    if (*(int *volatile *)&relocated != &data) return 1;
    if (data != 42) return 2;
    if (*(volatile const int *)&constant.plain != 7) return 3;
    for (int i = 0; i < PAGE; i++)
        if (zeroes[0][i] || zeroes[1][i] || zeroes[2][i]) return 4;
    if (of_thread != 7) return 5;
    if (answer() != 0x11111111) return 6;
    return 42;
}

void spoil(void) {
    data = of_thread = 1;
    memset(zeroes, 1, sizeof zeroes);
}

const void *plain_word(void) { return &constant.plain; }
const void *relocated_word(void) { return &relocated; }

// Write through a protection that only the library knows of.
static int write_constant(int (*protect)(void *, size_t, int)) {
    void *page = (void *)((uintptr_t)&constant & -PAGE);
    if (protect(page, PAGE, PROT_READ | PROT_WRITE)) return errno;
    *(int *)&constant.plain = 8;
    return 0;
}

static int raw_protect(void *start, size_t len, int protection) {
    return syscall(SYS_mprotect, start, len, protection);
}

int by_function(void) { return write_constant(mprotect); }
int by_system_call(void) { return write_constant(raw_protect); }
int by_default_handle(void) { return write_constant((int (*)(void *, size_t, int))dlsym(RTLD_DEFAULT, "mprotect")); }
int by_handle(void) {
    void *libc = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
    int (*protect)(void *, size_t, int) = libc ? dlsym(libc, "mprotect") : 0;
    int result = protect ? write_constant(protect) : -1;
    dlclose(libc);
    return result;
}
int freezes(void) { return mprotect(zeroes[1], PAGE, PROT_READ) ? errno : 0; }
int unmaps(void) { return munmap(zeroes[1], PAGE) ? errno : 0; }
int unmaps_from_before(void) { return munmap(zeroes[0], 2 * PAGE) ? errno : 0; }
int maps_over(void) {
    void *page = mmap(zeroes[1], PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    return page == zeroes[1] ? 0 : errno;
}
int moves_away(void) {
    void *page = mremap(zeroes[1], PAGE, 2 * PAGE, MREMAP_MAYMOVE);
    return page == MAP_FAILED ? errno : page == zeroes[1] ? -1 : munmap(page, 2 * PAGE);
}
