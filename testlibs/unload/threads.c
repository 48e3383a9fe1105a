// Starts a thread in its constructor, which uses thread-local variables, and waits for it; another
// runs until the destructor ends it.
#include <pthread.h>
#include <stdlib.h>
static _Thread_local int variable = 5;
static int seen, stop, ready;
static pthread_t other;
static void *short_one(void *unused) { seen = variable++; return unused; }
static void *long_one(void *unused) {
    variable = 6;
    __atomic_store_n(&ready, 1, __ATOMIC_SEQ_CST);
    while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST)) sched_yield();
    return variable == 6 ? unused : 0;
}
__attribute__((constructor)) static void construct(void) {
    pthread_t thread;
    if (pthread_create(&thread, 0, short_one, 0) || pthread_join(thread, 0)) abort();
    if (pthread_create(&other, 0, long_one, &ready)) abort();
    while (!__atomic_load_n(&ready, __ATOMIC_SEQ_CST)) sched_yield();
}
__attribute__((destructor)) static void destruct(void) {
    void *result;
    __atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
    if (pthread_join(other, &result) || result != &ready) abort();
}
int run(void) { return seen == 5 && variable == 5 ? 42 : seen; }
