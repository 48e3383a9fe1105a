// Calls one function that somebody else defines.
int late(int);
int run(void) { return late(41); }
