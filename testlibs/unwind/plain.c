// Calls back from some frames down.
typedef void (*callback)(void *);
__attribute__((noinline)) static int third(callback call, void *with) { call(with); return 40; }
__attribute__((noinline)) static int second(callback call, void *with) { return third(call, with) + 1; }
int calls_back(callback call, void *with) { return second(call, with) + 1; }
int run(void) { return 42; }
