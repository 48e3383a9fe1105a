// The seed of this project: the usual way to load a library that is only in memory, and what it
// does to a debugger.
//
//     memfd_dlopen LIBRARY SYMBOL NUMBER
//
// Copies LIBRARY into a memfd, loads it with dlopen("/proc/self/fd/3") and calls
// `int SYMBOL(int)` for five seconds. To the program that path is its library. gdb reads the same
// path out of the dynamic linker's list, and opens it *in its own process*, where "self" is gdb
// and descriptor 3 is whatever gdb has there: the first of the pipes by which its own event loop
// wakes itself (so in gdb 13.1, like descriptors 4 to 9). Opening a pipe's end that way gives
// another one of its reading end, so gdb waits there for a byte that only gdb itself could write.
//
// 3 is also what a program gets that has just its three standard streams open. The copy is moved
// there, so that what else is open here, inherited from whoever started us, changes nothing. (With
// a number that gdb has nothing at, it does not hang: it merely sees nothing of the library.)
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define DESCRIPTOR 3

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void copy(const char *path, int to) {
    char buffer[1 << 16];
    int from = open(path, O_RDONLY);
    if (from < 0)
        fail(path);
    for (ssize_t length; (length = read(from, buffer, sizeof buffer)) > 0;)
        if (write(to, buffer, length) != length)
            fail("write");
    close(from);
}

int main(int argc, char **argv) {
    alarm(180); // Should a debugger be stuck with us, and nobody end us.
    if (argc != 4)
        return 2;
    int memory = memfd_create("library", 0);
    if (memory < 0)
        fail("memfd_create");
    copy(argv[1], memory);
    if (memory != DESCRIPTOR) {
        if (dup2(memory, DESCRIPTOR) != DESCRIPTOR)
            fail("dup2");
        close(memory);
    }
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", DESCRIPTOR);
    void *library = dlopen(path, RTLD_NOW);
    if (!library) {
        puts(dlerror());
        return 1;
    }
    int (*function)(int) = (int (*)(int))dlsym(library, argv[2]);
    int number = atoi(argv[3]);
    for (int i = 0; i < 250; i++) {
        printf("[host] %s(%d) = %d\n", argv[2], number, function(number));
        fflush(stdout);
        usleep(20000);
    }
    return 0;
}
