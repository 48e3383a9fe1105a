// A key with a destructor that is created by a constructor.
#include <pthread.h>
static pthread_key_t key;
static void nothing(void *value) { (void)value; }
__attribute__((constructor)) static void construct(void) { pthread_key_create(&key, nothing); }
// 1 if the thread has no value of the key yet; then it has one.
int is_first(void) {
    int is_first = !pthread_getspecific(key);
    pthread_setspecific(key, &key);
    return is_first;
}
