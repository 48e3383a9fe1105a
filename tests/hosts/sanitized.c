/* A host that is built with a sanitizer: sanitized load|dlopen LIBRARY FUNCTION calls the function with 5. With
 * NAMED, docs/sanitizers.md has what the function below does. */

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memdl.h"

#ifdef NAMED
void name_frames_of_images(void);
#endif

static memdl_library *library;

static void *loaded(const char *path, const char *function)
{
    static char bytes[1 << 20];
    FILE *file = fopen(path, "rb");
    if (!file)
        return NULL;
    size_t len = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    memdl_options *options = memdl_options_new();
    memdl_options_set_name(options, "liberrs.so");
    library = memdl_open(bytes, len, options);
    memdl_options_free(options);
    if (!library)
        fprintf(stderr, "%s\n", memdl_error());
    return library ? memdl_sym(library, function) : NULL;
}

/* Which frame of the host calls the image. */
int calls_the_image(int (*function)(int))
{
    return function(5) + 1;
}

int main(int count, char **arguments)
{
    if (count != 4)
        return 2;
#ifdef NAMED
    name_frames_of_images();
#endif
    int is_opened = strcmp(arguments[1], "dlopen") == 0;
    void *function = is_opened ? dlsym(dlopen(arguments[2], RTLD_NOW), arguments[3])
                               : loaded(arguments[2], arguments[3]);
    if (!function)
        return 2;
    calls_the_image((int (*)(int))function);
    return 0;
}
