// A program that loads a library with memdl and calls it.
#include <stdio.h>
#include <stdlib.h>

#include "memdl.h"

int main(int count, char **arguments) {
    static char bytes[1 << 20];
    FILE *file = fopen(count > 1 ? arguments[1] : "", "rb");
    size_t len = file ? fread(bytes, 1, sizeof bytes, file) : 0;
    memdl_library *library = memdl_open(bytes, len, NULL);
    if (!library) {
        fprintf(stderr, "%s\n", memdl_error());
        return EXIT_FAILURE;
    }
    int (*entry)(int) = (int (*)(int))memdl_sym(library, "entry");
    printf("entry(5) = %d\n", entry(5));
    memdl_close(library);
    return EXIT_SUCCESS;
}
