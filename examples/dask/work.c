/* The native code of the example. */
#include <stddef.h>

#ifndef VERSION
#define VERSION 1
#endif

/* How often `diffuse` has run in this instance. */
unsigned long runs;

int version(void) { return VERSION; }

/* Spreads heat along a rod. The ends keep their temperature. */
void diffuse(double *cells, size_t count, size_t steps) {
    runs++;
    for (size_t step = 0; step < steps; step++) {
        double left = cells[0];
        for (size_t i = 1; i + 1 < count; i++) {
            double change = 0.25 * (left - 2 * cells[i] + cells[i + 1]);
            left = cells[i];
            cells[i] += change;
        }
    }
}
