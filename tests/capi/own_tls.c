/* memdl is opened by dlopen, together with others that need static thread-local storage, of which dlopen has
   little: libgomp, and a second copy of memdl. Then memdl loads libraries with thread-local variables of their
   own, of each model; more than there are words for. Threads that were there before, and new ones, find the
   initial values. */
#define _POSIX_C_SOURCE 200809L
#include "memdl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COPIES = 20 };

typedef int (*runs)(void);
static runs to_run[COPIES];
static pthread_barrier_t loaded, unloaded;

static void check(int result, const char *what) {
    if (result == 42) return;
    fprintf(stderr, "check %d failed in %s\n", result, what);
    exit(1);
}

static void *in_new_thread(void *nothing) {
    int i;
    (void)nothing;
    for (i = 0; i < COPIES; i++) check(to_run[i](), "a new thread");
    return NULL;
}

static void *in_old_thread(void *rounds) {
    int i, round;
    for (round = 0; round < *(int *)rounds; round++) {
        pthread_barrier_wait(&loaded);
        for (i = 0; i < COPIES; i++) check(to_run[i](), "a thread that was there before");
        pthread_barrier_wait(&unloaded);
    }
    return NULL;
}

static void *named(void *memdl, const char *name) {
    void *found = memdl ? dlsym(memdl, name) : NULL;
    if (found) return found;
    fprintf(stderr, "%s\n", dlerror());
    exit(1);
}

#define GET(variable, name) (found = named(memdl, name), memcpy(&variable, &found, sizeof found))

int main(int argc, char **argv) {
    static char bytes[1 << 20];
    void *memdl = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL), *found;
    int i, argument, rounds = argc - 4;
    memdl_library *libraries[COPIES];
    memdl_library *(*opens)(const void *, size_t, const memdl_options *);
    void *(*finds)(const memdl_library *, const char *);
    int (*closes)(memdl_library *);
    const char *(*says)(void);
    pthread_t old, new;
    GET(opens, "memdl_open");
    GET(finds, "memdl_sym");
    GET(closes, "memdl_close");
    GET(says, "memdl_error");
    for (argument = 2; argument < 4; argument++) {
        if (dlopen(argv[argument], RTLD_NOW | RTLD_LOCAL)) continue;
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    pthread_barrier_init(&loaded, NULL, 2);
    pthread_barrier_init(&unloaded, NULL, 2);
    if (pthread_create(&old, NULL, in_old_thread, &rounds)) return 1;
    for (; argument < argc; argument++) {
        FILE *file = fopen(argv[argument], "rb");
        size_t len = file ? fread(bytes, 1, sizeof bytes, file) : 0;
        int is_many = !strstr(argv[argument], "initial-exec");
        for (i = 0; i < COPIES; i++) {
            libraries[i] = i && !is_many ? NULL : opens(bytes, len, NULL);
            if (i && !is_many) continue;
            found = libraries[i] ? finds(libraries[i], "run") : NULL;
            if (!found) {
                fprintf(stderr, "%s: %s\n", argv[argument], says());
                return 1;
            }
            memcpy(&to_run[i], &found, sizeof found);
        }
        if (!is_many) {
            found = finds(libraries[0], "used");
            for (i = 1; i < COPIES; i++) memcpy(&to_run[i], &found, sizeof found);
        }
        pthread_barrier_wait(&loaded);
        if (pthread_create(&new, NULL, in_new_thread, NULL) || pthread_join(new, NULL)) return 1;
        in_new_thread(NULL);
        pthread_barrier_wait(&unloaded);
        for (i = 0; i < COPIES; i++)
            if (libraries[i] && closes(libraries[i]) < 0) return 1;
        fclose(file);
    }
    if (pthread_join(old, NULL)) return 1;
    puts("thread-local variables of its own work");
    return 0;
}
