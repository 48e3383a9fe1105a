/* Each function has an error for one sanitizer to find. The comments name the lines that reports tell. */

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

int kept;

__attribute__((noinline)) static int reads(const int *values, int index)
{
    return values[index] + kept; /* overflows the block */
}

int overflow(int index)
{
    int *values = calloc(5, sizeof *values);
    int sum = reads(values, index) + 1; /* calls what overflows */
    free(values);
    return sum;
}

int leak(int size)
{
    void *volatile lost = malloc(size); /* is leaked */
    lost = NULL;
    return lost != NULL;
}

int undefined(int number)
{
    int most = 2147483647;
    return most + number; /* is undefined */
}

static void *races(void *argument)
{
    kept++; /* races */
    return argument;
}

int race(int number)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, races, NULL) != 0)
        return 1;
    /* A race of two accesses at the very same time may be missed. */
    usleep(50000);
    kept += number; /* races, too */
    pthread_join(thread, NULL);
    return kept;
}
