// What is wrapped: last in the list (LAST), or a wrapper itself.
#define _GNU_SOURCE
#include <dlfcn.h>
#ifdef LAST
int value(void) { return dlsym(RTLD_NEXT, "value") ? 0 : 4; }
#else
int value(void) { return ((int (*)(void))dlsym(RTLD_NEXT, "value"))() + 1; }
#endif
