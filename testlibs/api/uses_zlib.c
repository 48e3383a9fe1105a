// Needs a library of the system that the process has not loaded.
const char *zlibVersion(void);
int run(void) { return zlibVersion()[0] == '1' ? 42 : __LINE__; }
