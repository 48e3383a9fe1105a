// Its constructor and its destructor call the host, in a thread of their own too.
#include <pthread.h>
void host_works(void);
static void *body(void *unused) { host_works(); return unused; }
static void work(void) {
    pthread_t thread;
    host_works();
    if (!pthread_create(&thread, 0, body, 0)) pthread_join(thread, 0);
}
__attribute__((constructor)) static void construct(void) { work(); }
__attribute__((destructor)) static void destruct(void) { work(); }
int run(void) { return 42; }
