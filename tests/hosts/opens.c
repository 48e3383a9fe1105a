// A program that opens memdl with dlopen, and loads the libraries of its arguments: the first needs static
// thread-local storage, and `entry` of the second is called.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "memdl.h"

static void *named(void *library, const char *name) {
    void *found = library ? dlsym(library, name) : NULL;
    if (found) return found;
    fprintf(stderr, "%s\n", dlerror());
    exit(EXIT_FAILURE);
}

int main(int count, char **arguments) {
    static char bytes[1 << 20];
    void *memdl = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
    memdl_library *(*opens)(const void *, size_t, const memdl_options *) =
        (memdl_library * (*)(const void *, size_t, const memdl_options *)) named(memdl, "memdl_open");
    void *(*finds)(const memdl_library *, const char *) =
        (void *(*)(const memdl_library *, const char *))named(memdl, "memdl_sym");
    const char *(*says)(void) = (const char *(*)(void))named(memdl, "memdl_error");
    memdl_library *library = NULL;
    for (int i = 2; i < count; i++) {
        FILE *file = fopen(arguments[i], "rb");
        size_t len = file ? fread(bytes, 1, sizeof bytes, file) : 0;
        library = opens(bytes, len, NULL);
        if (!library) {
            fprintf(stderr, "%s\n", says());
            return EXIT_FAILURE;
        }
    }
    int (*entry)(int) = (int (*)(int))finds(library, "entry");
    printf("entry(5) = %d\n", entry(5));
    return EXIT_SUCCESS;
}
