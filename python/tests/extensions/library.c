/* A library that has nothing to do with Python. */
#include <errno.h>

int count = 7;
__thread int own = 5;
int add(int a, int b) { return a + b; }
double half(double x) { return x / 2; }
const char *text(void) { return "from memory"; }
int increment(void) { return ++count; }
