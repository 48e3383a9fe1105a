/* A library whose constructor ends the process: it must not run. So must no resolver of an IFUNC. */
#include <unistd.h>

int dep(int x) { return x + 1; }

static int chosen(void) { return 3; }
static void *choose(void)
{
    _exit(4);
    return chosen;
}
int by_cpu(void) __attribute__((ifunc("choose")));

#ifdef FATAL
__attribute__((constructor)) static void fatal(void) { _exit(5); }
#endif
