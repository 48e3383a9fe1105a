/* Spends its time below functions of its own, and below one of the C library's that calls back. Without frame
 * pointers, whoever walks its stack needs its unwind tables. */

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile unsigned long total;

__attribute__((noinline)) static unsigned long spins_here(unsigned long turns)
{
    unsigned long sum = 0;
    for (unsigned long turn = 0; turn < turns; turn++)
        sum += turn ^ (sum << 3);
    total += sum;
    return sum;
}

static int compares(const void *a, const void *b)
{
    total += spins_here(2000);
    return *(const int *)a - *(const int *)b;
}

__attribute__((noinline)) static int sorts(int seed)
{
    char large[256];
    int values[64];
    memset(large, seed, sizeof large);
    total += large[7];
    for (int i = 0; i < 64; i++)
        values[i] = i * 37 % 64;
    qsort(values, 64, sizeof *values, compares);
    return values[3] + large[9];
}

int call(int rounds)
{
    int sum = 0;
    for (int round = 0; round < rounds; round++) {
        sum += sorts(round);
        total++;
    }
    return sum;
}

/* Calls no other library. */
int call_own(int rounds)
{
    for (int round = 0; round < 300 * rounds; round++)
        spins_here(2000);
    return rounds;
}

__attribute__((noinline)) static int waits_here(void)
{
    static const char line[] = "\nwaits\n";
    int result = write(STDOUT_FILENO, line, sizeof line - 1) < 0 ? 0 : pause();
    total++;
    return result;
}

/* Says so, and waits until the process is killed. */
int waits(int number)
{
    int result = waits_here();
    total++;
    return result + number;
}
