// Says what runs at the end of the process.
#include <stdio.h>
#include <stdlib.h>
static void handler(void) { puts("handler of " NAME), fflush(stdout); }
__attribute__((constructor)) static void construct(void) { atexit(handler); }
__attribute__((destructor)) static void destruct(void) { puts("destructor of " NAME), fflush(stdout); }
int run(void) { return 42; }
