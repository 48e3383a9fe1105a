// Whatever runs of it ends the process.
#include <stdlib.h>

__thread int local = 7;

__attribute__((constructor)) static void constructor(void) { abort(); }
__attribute__((destructor)) static void destructor(void) { abort(); }

static int chosen(void) { return local; }
static void *resolver(void) { abort(); return chosen; }
int indirect(void) __attribute__((ifunc("resolver")));

int (*pointer)(void) = indirect;
int calls(void) { return indirect() + pointer(); }
