// What an access to a thread-local variable costs: each call makes one, in the model that the
// library is compiled for.
static _Thread_local long local;
_Thread_local long variable;
__attribute__((noinline)) static long *access_once(void) {
    // The compiler must ask each time.
    __asm__ volatile("" ::: "memory");
    return &variable;
}
long accesses(long count) {
    long sum = 0;
    for (long i = 0; i < count; i++) {
        long *place = access_once();
        sum += ++*place;
        __asm__ volatile("" : "+r"(sum));
    }
    return sum + local;
}
