/* Loads the library that its last argument names, unloads it, and fails to load half of it. Prints what its callback
 * hears, if the first argument is a memdl_log_level for one. Run by tests/capi/log.rs. */
#include "memdl.h"

#include <stdio.h>
#include <stdlib.h>

static void hear(int level, const char *text, void *user) {
    (void)user;
    printf("heard %d: %s\n", level, text);
}

int main(int argc, char **argv) {
    static char bytes[1 << 20];
    FILE *file = fopen(argv[argc - 1], "rb");
    size_t len = file ? fread(bytes, 1, sizeof bytes, file) : 0;
    if (len == 0 || fclose(file) != 0) return 1;
    if (argc == 3 && memdl_set_log((memdl_log_level)atoi(argv[1]), hear, NULL, NULL) != 0) return 2;
    memdl_library *library = memdl_open(bytes, len, NULL);
    if (!library || memdl_close(library) != 0) return 3;
    if (memdl_open(bytes, len / 2, NULL) != NULL) return 4;
    puts("done");
    return 0;
}
