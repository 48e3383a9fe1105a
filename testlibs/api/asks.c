// References that the host has to satisfy.
int host_function(int);
extern int host_data;
__attribute__((weak)) int weak_function(int);
__attribute__((weak)) int other_weak_function(int);
int getppid(void);
int run(void) { return host_function(host_data); }
int weak(void) { return weak_function ? weak_function(1) : -1; }
int other_weak(void) { return other_weak_function ? other_weak_function(1) : -1; }
int parent(void) { return getppid(); }
