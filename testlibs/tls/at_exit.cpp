// Thread-local variables in use while their thread ends: by destructors of thread-local objects,
// and of keys, whose values are set again in each round.
#include <pthread.h>
static thread_local long value = 5;
static int *report;
static pthread_key_t key;
static long rounds;

struct Ends {
    ~Ends() { *report = value == 6 ? 1 : -1, value = 7; }
};
static thread_local Ends ends;

static void key_ends(void *) {
    if (*report == 1 && value == 7)
        *report = 2;
    if (++rounds < 3)
        pthread_setspecific(key, &rounds);
    else if (*report == 2 && value == 7)
        *report = 42;
}
extern "C" int prepare(int *to) {
    report = to, rounds = 0;
    static int made = pthread_key_create(&key, key_ends);
    return made;
}
extern "C" int run() {
    (void)&ends;
    if (value++ != 5 || !report)
        return 1;
    return pthread_setspecific(key, &rounds) ? 2 : 42;
}
extern "C" int finish() { return pthread_key_delete(key); }
