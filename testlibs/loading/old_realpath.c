// The old `realpath` wants a buffer, the new one makes one. On machines for which the C library has the new one only,
// `fmemopen` has an old version, which finds the end of a text.
#include "check.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef __x86_64__
char *old_realpath(const char *path, char *buffer);
__asm__(".symver old_realpath, realpath@GLIBC_2.2.5");

int run(void) {
    errno = 0;
    CHECK(!old_realpath("/", 0) && errno == EINVAL);
    char *path = realpath("/", 0);
    CHECK(path);
    free(path);
    return 42;
}
#else
FILE *old_fmemopen(void *buffer, size_t size, const char *mode);
__asm__(".symver old_fmemopen, fmemopen@GLIBC_2.17");

static long size(FILE *file) {
    fseek(file, 0, SEEK_END);
    long at = ftell(file);
    fclose(file);
    return at;
}

int run(void) {
    char text[8] = "abc";
    CHECK(size(fmemopen(text, sizeof text, "rb")) == 8);
    CHECK(size(old_fmemopen(text, sizeof text, "r")) == 3);
    return 42;
}
#endif
