// The old `realpath` wants a buffer, the new one makes one.
#include "check.h"
#include <errno.h>
#include <stdlib.h>

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
