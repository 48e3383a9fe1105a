// What a debugger is shown in C: arguments, locals, a structure, an enumeration, globals, a
// constructor, and a callback that the C library calls. The marks are where tests set breakpoints.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct pair {
    int first;
    const char *name;
    double ratio;
};
enum color { RED, GREEN = 5, BLUE };

int lib_global = 7;
int lib_constructed = 0;
_Thread_local int lib_thread = 100;
static int lib_static = 9;

__attribute__((constructor)) static void lib_constructor(void) {
    lib_constructed = getppid() > 0; // MARK constructor
}

__attribute__((noinline)) int leaf(int a, int b) {
    int local = a * 3 + b;
    struct pair both = {local, "pair", 1.5};
    enum color shade = GREEN;
    lib_global += local; // MARK leaf
    lib_static ^= both.first + shade + lib_thread;
    return lib_global + lib_static + (int)strlen(both.name);
}

__attribute__((noinline)) int middle(int n, int *values) {
    int sum = 0;
    for (int i = 0; i < n; i++)
        sum += leaf(i, values[i]); // MARK middle
    return sum;
}

static __attribute__((noinline)) int compare(const void *a, const void *b) {
    int left = *(const int *)a;
    int right = *(const int *)b;
    return left - right; // MARK compare
}

int entry(int n) {
    int values[8] = {7, 6, 5, 4, 3, 2, 1, n};
    qsort(values, 8, sizeof values[0], compare);
    return middle(n, values) + 1; // MARK entry
}
