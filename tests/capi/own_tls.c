/* memdl is opened by dlopen, and a library with thread-local variables of its own, by initial exec, is the
   first thing that it loads: what new threads start with must be found though none of memdl's own
   variables were used yet. */
#define _POSIX_C_SOURCE 200809L
#include "memdl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

typedef int (*runs)(void);
static runs run;

static void *in_thread(void *result) {
    *(int *)result = run();
    return NULL;
}

static void *named(void *memdl, const char *name) {
    void *found = memdl ? dlsym(memdl, name) : NULL;
    if (!found) fprintf(stderr, "%s\n", dlerror());
    return found;
}

int main(int argc, char **argv) {
    static char bytes[1 << 20];
    FILE *file = argc == 3 ? fopen(argv[2], "rb") : NULL;
    size_t len = file ? fread(bytes, 1, sizeof bytes, file) : 0;
    void *memdl = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    void *open = named(memdl, "memdl_open"), *sym = named(memdl, "memdl_sym");
    void *error = named(memdl, "memdl_error");
    memdl_library *(*memdl_opens)(const void *, size_t, const memdl_options *);
    void *(*memdl_finds)(const memdl_library *, const char *);
    const char *(*memdl_says)(void);
    memdl_library *library;
    void *found;
    int result = 0;
    pthread_t thread;
    if (!open || !sym || !error) return 1;
    memcpy(&memdl_opens, &open, sizeof open);
    memcpy(&memdl_finds, &sym, sizeof sym);
    memcpy(&memdl_says, &error, sizeof error);
    library = memdl_opens(bytes, len, NULL);
    found = library ? memdl_finds(library, "run") : NULL;
    if (!found) {
        fprintf(stderr, "%s\n", memdl_says());
        return 1;
    }
    memcpy(&run, &found, sizeof run);
    if (pthread_create(&thread, NULL, in_thread, &result) || pthread_join(thread, NULL)) return 1;
    if (result != 42 || run() != 42) {
        fprintf(stderr, "check %d failed in a new thread\n", result);
        return 1;
    }
    puts("thread-local variables of its own work");
    return 0;
}
