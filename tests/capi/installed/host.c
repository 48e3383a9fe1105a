/* A host that knows memdl by its installed files alone: runs FILE's function `plain_value`. */
#include <memdl.h>
#include <stdio.h>
#include <stdlib.h>

static void *read_file(const char *path, size_t *len) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) exit(3);
    long end = ftell(file);
    if (end <= 0) exit(3);
    *len = (size_t)end;
    void *bytes = malloc(*len);
    rewind(file);
    if (!bytes || fread(bytes, 1, *len, file) != *len) exit(3);
    fclose(file);
    return bytes;
}

int main(int argc, char **argv) {
    size_t len = 0;
    if (argc != 2 || memdl_version() < MEMDL_VERSION) return 2;
    void *bytes = read_file(argv[1], &len);
    memdl_library *library = memdl_open(bytes, len, NULL);
    if (!library) {
        fprintf(stderr, "%s\n", memdl_error());
        return 1;
    }
    int (*value)(void) = (int (*)(void))memdl_sym_function(library, "plain_value");
    printf("memdl %s: %d\n", memdl_version_text(), value ? value() : -1);
    free(bytes);
    return memdl_close(library);
}
