// A program with memdl and another runtime that registers code with debuggers. Code of the other one calls an
// image of memdl.
#include <stdio.h>
#include <stdlib.h>

#include "memdl.h"

int run_jitted(const char *path, int (*called)(int));

int main(int count, char **arguments) {
    static char bytes[1 << 20];
    FILE *file = fopen(count > 2 ? arguments[1] : "", "rb");
    size_t len = file ? fread(bytes, 1, sizeof bytes, file) : 0;
    memdl_library *library = memdl_open(bytes, len, NULL);
    if (!library) {
        fprintf(stderr, "%s\n", memdl_error());
        return EXIT_FAILURE;
    }
    int (*entry)(int) = (int (*)(int))memdl_sym(library, "entry");
    printf("jitted = %d\n", run_jitted(arguments[2], entry));
    return EXIT_SUCCESS;
}
