/* Tries to change itself. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

int counter = 1;
static int zeroed[5000];
const int fixed[3000] = {1, 2, 3};
int (*const table[])(void);

static int count(void) { return zeroed[4999] = ++counter; }
int (*const table[])(void) = {count};
int run(void) { return count() >= 2 && table[0]() >= 3 ? 42 : __LINE__; }

static int refused(const void *at, int (*change)(void *, size_t)) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    errno = 0;
    return change((void *)((uintptr_t)at & ~(page - 1)), page) == -1 && errno == EPERM;
}
static int unmap(void *page, size_t size) { return munmap(page, size); }
static int write_to(void *page, size_t size) {
    return mprotect(page, size, PROT_READ | PROT_WRITE);
}
static int execute(void *page, size_t size) {
    return mprotect(page, size, PROT_READ | PROT_EXEC);
}
static int replace(void *page, size_t size) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    return mmap(page, size, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED ? -1 : 0;
}
static int move(void *page, size_t size) {
    return mremap(page, size, 2 * size, MREMAP_MAYMOVE) == MAP_FAILED ? -1 : 0;
}

/* 0, or which of the attempts was not refused. */
int attempts(void) {
    const void *places[] = {(void *)(uintptr_t)attempts, fixed, table, &counter, zeroed + 2000};
    for (int i = 0; i < 5; i++) {
        if (!refused(places[i], unmap)) return 10 * i + 1;
        if (!refused(places[i], replace)) return 10 * i + 2;
        if (!refused(places[i], move)) return 10 * i + 3;
        if (!refused(places[i], i < 3 ? write_to : execute)) return 10 * i + 4;
    }
    return 0;
}
