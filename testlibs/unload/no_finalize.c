// Has functions called at the exit and on a fork, and never asks for them itself: it has no destructor that
// calls `__cxa_finalize`, as when that name is bound to nothing. Null pointers are refused.
#include <stddef.h>

int __cxa_atexit(void (*)(void *), void *, void *);
int __cxa_at_quick_exit(void (*)(void), void *);
int __cxa_thread_atexit_impl(void (*)(void *), void *, void *);
int __register_atfork(void (*)(void), void (*)(void), void (*)(void), void *);

static char handle;
static void at_exit(void *number) { ++*(int *)number; }
static void never(void) { __builtin_trap(); }
static void at_fork(void) {}

// How many of those with null pointers were refused.
int leave(int *number) {
    __cxa_atexit(at_exit, number, &handle);
    __cxa_at_quick_exit(never, &handle);
    __register_atfork(at_fork, at_fork, at_fork, &handle);
    return !!__cxa_atexit(NULL, NULL, &handle) + !!__cxa_at_quick_exit(NULL, &handle) +
           !!__cxa_thread_atexit_impl(NULL, NULL, &handle);
}
