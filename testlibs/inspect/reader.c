/* A library with imports of every kind: of the C library, of a library that it needs, weak ones, functions that
   memdl replaces, thread-local variables. */
#include <dlfcn.h>
#include <stdlib.h>

extern int dep(int);
extern int from_host(void) __attribute__((weak));
extern int nowhere(void) __attribute__((weak));
extern int supplied(void);

__thread int counter = 1;
static int hidden(void) { return 2; }

int run(void)
{
    counter += dep(1) + (from_host ? from_host() : 0) + (nowhere ? nowhere() : 0) + supplied();
    counter += dlsym(RTLD_DEFAULT, "run") != 0;
    return counter + hidden() + (getenv("MEMDL_TEST_NOTHING") != 0);
}
