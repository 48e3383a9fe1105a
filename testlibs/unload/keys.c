// Keys of threads with a destructor, which counts.
#include <pthread.h>
#include <threads.h>
static pthread_key_t key;
static void count(void *report) { ++*(int *)report; }
int creates_key(void) { return pthread_key_create(&key, count) ? -1 : (int)key; }
int creates_tss(void) { return tss_create(&key, count) == thrd_success ? (int)key : -1; }
int keeps(int *report) { return pthread_setspecific(key, report); }
