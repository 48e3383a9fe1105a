// A constructor and a destructor that call the host, which loads and unloads then.
int host_constructs(void), host_destructs(void);
static int result = -1;
__attribute__((constructor)) static void construct(void) { result = host_constructs(); }
__attribute__((destructor)) static void destruct(void) { host_destructs(); }
int run(void) { return result; }
