/* Functions for the executor. Each reads `in_len` bytes at `in`, writes at most `out_capacity` bytes at `out`, and
 * returns how many it has written. More than `out_capacity` says that it failed. */
#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Upper case. */
size_t upper(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_capacity) {
    if (in_len > out_capacity) return SIZE_MAX;
    for (size_t i = 0; i < in_len; i++)
        out[i] = (uint8_t)toupper(in[i]);
    return in_len;
}

/* How often it was called: always 1, if calls do not see each other. */
size_t count(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_capacity) {
    static int calls;
    (void)in, (void)in_len;
    return (size_t)snprintf((char *)out, out_capacity, "%d", ++calls);
}

static int quotient(int dividend, int divisor) {
    return dividend / divisor;
}

/* "84 2" is 42, and "1 0" a crash. */
size_t divide(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_capacity) {
    char text[64] = "";
    int dividend = 0, divisor = 0;
    memcpy(text, in, in_len < sizeof text ? in_len : sizeof text - 1);
    sscanf(text, "%d %d", &dividend, &divisor);
    int result = quotient(dividend, divisor);
    return (size_t)snprintf((char *)out, out_capacity, "%d", result);
}

/* Writes where nothing is. */
size_t store(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_capacity) {
    volatile uint8_t *nowhere = (uint8_t *)16;
    (void)in, (void)in_len, (void)out, (void)out_capacity;
    *nowhere = 1;
    return 0;
}

/* Calls nothing. */
size_t jump(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_capacity) {
    size_t (*volatile nothing)(const uint8_t *, size_t, uint8_t *, size_t) = NULL;
    size_t result = nothing(in, in_len, out, out_capacity);
    return result + 1;
}

/* A crash in the C library, on this function's behalf. */
size_t give_up(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_capacity) {
    (void)in, (void)in_len, (void)out, (void)out_capacity;
    abort();
}

/* Uses all of the stack. */
size_t dig(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_capacity) {
    volatile uint8_t hole[4096];
    hole[0] = (uint8_t)in_len;
    return dig(in, in_len + 1, out, out_capacity) + hole[0];
}

/* Never returns. */
size_t spin(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_capacity) {
    volatile size_t turns = 0;
    (void)in, (void)in_len, (void)out, (void)out_capacity;
    for (;;)
        turns++;
}

/* Sleeps for the number of milliseconds in its input, and says so. */
size_t nap(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_capacity) {
    char text[16] = "";
    memcpy(text, in, in_len < sizeof text ? in_len : sizeof text - 1);
    for (int left = atoi(text); left > 0; left -= 10)
        usleep(10 * 1000);
    return (size_t)snprintf((char *)out, out_capacity, "slept");
}

/* Ends its process. */
size_t leave(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_capacity) {
    (void)in, (void)in_len, (void)out, (void)out_capacity;
    _exit(3);
}

/* Fails. */
size_t fail(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_capacity) {
    (void)in, (void)in_len, (void)out, (void)out_capacity;
    return SIZE_MAX;
}

/* No function. */
int data = 1;
