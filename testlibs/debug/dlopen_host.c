// The reference: loads a library with dlopen, from its file, and calls `int symbol(int)` of it.
//
//     dlopen_host LIBRARY SYMBOL NUMBER
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static __attribute__((noinline)) int host_calls(int (*function)(int), int number) {
    int result = function(number);
    return result;
}

int main(int argc, char **argv) {
    alarm(180);
    if (argc != 4)
        return 2;
    void *library = dlopen(argv[1], RTLD_NOW);
    if (!library) {
        puts(dlerror());
        return 1;
    }
    int (*function)(int) = (int (*)(int))dlsym(library, argv[2]);
    int number = atoi(argv[3]);
    printf("\n[host] %s(%d) = %d\n", argv[2], number, host_calls(function, number));
    return 0;
}
