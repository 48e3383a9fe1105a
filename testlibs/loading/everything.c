// A little of all that compilers and linkers lay out differently: data that points to data, code
// and strings, calls into the C library and into itself, weak and protected symbols, zeroes,
// thread-local variables, a constructor.
#include "check.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int exported_number = 7;
int *exported_pointer = &exported_number;
__attribute__((visibility("protected"))) int protected_number = 9;
__attribute__((weak)) extern int defined_by_nobody(void);
__attribute__((weak)) int weakly_defined(void) { return 11; }

static int hidden_number = 5;
static int *const relro_pointer = &hidden_number;
static const char *const names[] = { "zero", "one", "two", "three" };
int zeroes[5000];
static char more_zeroes[3];

_Thread_local int exported_counter = 3;
static _Thread_local int first_local = 1, second_local;

int twice(int number) { return 2 * number; }
int (*function_pointer)(int) = twice;

static int constructed;
__attribute__((constructor)) static void construct(void) { constructed += *exported_pointer; }

static int descending(const void *a, const void *b) { return *(const int *)b - *(const int *)a; }

int run(void) {
    CHECK(constructed == 7);
    CHECK(*exported_pointer == 7 && exported_pointer == &exported_number);
    CHECK(*relro_pointer == 5 && protected_number == 9);
    CHECK(!defined_by_nobody);
    CHECK(weakly_defined() == 11);
    CHECK(function_pointer(21) == 42 && twice(4) == 8);
    CHECK(strcmp(names[3], "three") == 0);
    for (unsigned i = 0; i < sizeof zeroes / sizeof *zeroes; i++)
        CHECK(zeroes[i] == 0);
    CHECK(!more_zeroes[0] && !more_zeroes[2]);
    CHECK(++exported_counter == 4);
    CHECK(++first_local == 2 && ++second_local == 1);

    char text[64];
    snprintf(text, sizeof text, "%d %s %.2f", exported_number, names[1], 1.5);
    CHECK(strcmp(text, "7 one 1.50") == 0);
    int *numbers = malloc(4 * sizeof *numbers);
    for (int i = 0; i < 4; i++)
        numbers[i] = i;
    qsort(numbers, 4, sizeof *numbers, descending);
    CHECK(numbers[0] == 3 && numbers[3] == 0);
    free(numbers);
    zeroes[4999] = constructed = exported_counter;
    return 42;
}
