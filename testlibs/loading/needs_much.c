// Needs libraries, versions and symbols, which the flags and the test may leave out.
#ifdef STUB
// What it is linked to.
int STUB(void) { return 1; }
#else
int absent_function(void);
extern int absent_data;
extern _Thread_local int absent_thread_local;
int from_one(void), from_two(void);
#ifdef SYMBOLS
int (*pointer)(void) = absent_function;
int run(void) { return absent_function() + absent_data + absent_thread_local + from_one(); }
#else
int run(void) { return from_one() + from_two() == 2 ? 42 : __LINE__; }
#endif
#endif
