/* An image whose debug information is made up by tests/hostile/hostile_debug.rs. */
#ifndef PLAIN
static _Thread_local int counter = 40;
int next(void) { return ++counter; }
#else
static int counter = 40;
int next(void) { return ++counter; }
#endif
