// What a debugger is shown of threads that a library starts: each calls a function of it, one
// after the other, while the others wait. The marks are where tests set breakpoints.
#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>

static _Thread_local int mine = 1;
static sem_t turns[2];
static pthread_barrier_t ready;
int visits = 0;

__attribute__((noinline)) void knock(int number) {
    visits += number + mine; // MARK knock
}

static void *work(void *argument) {
    int number = *(int *)argument;
    mine = number * 10;
    pthread_barrier_wait(&ready);
    sem_wait(&turns[number - 1]); // MARK waits
    usleep(200000);
    knock(number); // MARK work
    if (number < 2)
        sem_post(&turns[number]);
    return argument;
}

int entry(int n) {
    static int numbers[] = {1, 2};
    pthread_t threads[2];
    pthread_barrier_init(&ready, 0, 3);
    for (int i = 0; i < 2; i++) {
        sem_init(&turns[i], 0, 0);
        pthread_create(&threads[i], 0, work, &numbers[i]);
    }
    pthread_barrier_wait(&ready);
    // This, and that above, so that all others stand where they wait when one visits.
    usleep(200000); // MARK starts
    sem_post(&turns[0]);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], 0); // MARK joins
    return visits + n;
}
