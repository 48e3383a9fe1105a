// Lacks a function, which it never calls.
int defined_nowhere(void);
int run(void) { return 42; }
int never(void) { return defined_nowhere(); }
