/* Thread-local variables of an executable, used by libraries: run by tests/capi/capi.rs with the paths of
   the test libraries, each of which is loaded by dlopen too. */
#define _POSIX_C_SOURCE 200809L
#include "memdl.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__thread int host_variable = 500;
__thread int host_zeroes[100];
__thread char host_aligned[64] __attribute__((aligned(64))) = "host";
int *address_in_host(void);
int *address_in_host(void) { return &host_variable; }

typedef int (*runs)(void);

static void *body(void *argument) {
    runs run;
    int result;
    memcpy(&run, argument, sizeof run);
    errno = 0;
    result = run();
    if (result != 42 || errno != 77) {
        fprintf(stderr, "check %d failed, errno is %d\n", result, errno);
        exit(1);
    }
    return NULL;
}

static void everywhere(void *function) {
    int i;
    body(&function);
    for (i = 0; i < 3; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, body, &function) || pthread_join(thread, NULL)) exit(1);
    }
    body(&function);
}

int main(int argc, char **argv) {
    int i;
    for (i = 1; i < argc; i++) {
        static char bytes[1 << 20];
        FILE *file = fopen(argv[i], "rb");
        size_t len = file ? fread(bytes, 1, sizeof bytes, file) : 0;
        memdl_library *library = memdl_open(bytes, len, NULL);
        void *opened = dlopen(argv[i], RTLD_NOW | RTLD_LOCAL);
        if (!library || !opened) {
            fprintf(stderr, "%s: %s; %s\n", argv[i], library ? "" : memdl_error(), opened ? "" : dlerror());
            return 1;
        }
        fclose(file);
        everywhere(memdl_sym(library, "run"));
        everywhere(dlsym(opened, "run"));
        memdl_close(library);
        dlclose(opened);
    }
    puts("thread-local variables of the executable work");
    return 0;
}
