// Exports a thread-local variable, for others to use.
_Thread_local int shared = 1000;
_Thread_local int shared_zero;
int *address_of_shared(void) { return &shared; }
int change_shared(int by) { shared_zero += by; return shared += by; }
