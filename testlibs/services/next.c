// Wraps what the library that it needs defines.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
int value(void) {
    int (*next)(void) = (int (*)(void))dlsym(RTLD_NEXT, "value");
    return next ? next() * 10 : 0;
}
// The C library's is what comes last.
int atoi(const char *text) { return ((int (*)(const char *))dlsym(RTLD_NEXT, "atoi"))(text) + 1; }
int run(void) { return value(); }
