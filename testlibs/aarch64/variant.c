/* Calls a function that no library defines, by the convention that PCS selects. */
#ifdef VECTOR
__attribute__((aarch64_vector_pcs))
#endif
extern int missing(int x);

int call_missing(int x) { return missing(x); }

int run(void) { return 42; }
