// OpenMP: reductions, thread-private variables, tasks, teams inside teams, locks. Can run again,
// and in several threads at once.
#include <omp.h>
#include <stdlib.h>

static int own;
#pragma omp threadprivate(own)

static long fibonacci(int n) {
    if (n < 2) return n;
    long one, two;
#pragma omp task shared(one) if (n > 12)
    one = fibonacci(n - 1);
#pragma omp task shared(two) if (n > 12)
    two = fibonacci(n - 2);
#pragma omp taskwait
    return one + two;
}

int run(void) {
    enum { THREADS = 4, COUNT = 1000000 };
    omp_set_dynamic(0);
#if __GNUC__ < 11
    omp_set_nested(1); /* Later the next line says it. */
#endif
    omp_set_max_active_levels(2);
    long sum = 0;
    int seen = 0;
#pragma omp parallel for num_threads(THREADS) reduction(+ : sum) reduction(| : seen)
    for (int i = 1; i <= COUNT; i++) {
        sum += i;
        seen |= 1 << omp_get_thread_num();
    }
    if (sum != COUNT / 2 * (COUNT + 1L)) return 1;
    if (seen != (1 << THREADS) - 1) return 2;

    // The team's threads are the same in both regions, and so are their variables.
    int wrong = 0;
#pragma omp parallel num_threads(THREADS)
    own = 100 + omp_get_thread_num();
#pragma omp parallel num_threads(THREADS) reduction(+ : wrong)
    wrong += own != 100 + omp_get_thread_num();
    if (wrong) return 3;

    long number = 0;
#pragma omp parallel num_threads(THREADS)
#pragma omp single
    number = fibonacci(22);
    if (number != 17711) return 4;

    int inner = 0;
#pragma omp parallel num_threads(2) reduction(+ : inner)
    {
        int mine = 0;
#pragma omp parallel num_threads(2) reduction(+ : mine)
        mine += 1 + omp_get_level() * 10;
        inner += mine;
    }
    if (inner != 2 * 2 * 21) return 5;

    omp_lock_t lock;
    omp_init_lock(&lock);
    int counter = 0, atomic = 0;
#pragma omp parallel for num_threads(THREADS) schedule(dynamic, 7)
    for (int i = 0; i < 10000; i++) {
        omp_set_lock(&lock);
        counter++;
        omp_unset_lock(&lock);
#pragma omp atomic
        atomic += 2;
    }
    omp_destroy_lock(&lock);
    if (counter != 10000 || atomic != 20000) return 6;
    return 42;
}
