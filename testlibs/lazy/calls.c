// Calls of functions that another library (or nobody) defines, through a lazy PLT: whatever an
// argument is passed in arrives.
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#define CHECK(condition) do { if (!(condition)) return __LINE__; } while (0)
struct big { long words[9]; };
struct pair { long whole; double part; };
int all_integers(int, long, short, char, unsigned long, long, long, long);
double all_doubles(double, double, double, double, double, double, double, double, double);
int mixed(int, double, int, double, const char *, float, long double);
struct big returns_big(long, long);
struct pair returns_pair(long, double);
long double returns_long_double(long double);
_Complex double returns_complex(_Complex double);
double varies(int, ...);
int formats(char *, const char *, ...);

__attribute__((weak)) int missing(int);
int missing_for_good(int);
int call_missing(int x) { return missing_for_good(x); }

int run(void) {
    CHECK(all_integers(1, 2, 3, 4, 5, 6, 7, 8) == 12345678);
    CHECK(all_doubles(1, 2, 3, 4, 5, 6, 7, 8, 9) == 285);
    CHECK(mixed(1, 2.5, 3, 4.5, "five", 6.5f, 7.5L) == 42);
    struct big big = returns_big(5, 7);
    for (int i = 0; i < 9; i++)
        CHECK(big.words[i] == 5 + 7 * i);
    struct pair pair = returns_pair(9, 2.25);
    CHECK(pair.whole == 10 && pair.part == 4.5);
    CHECK(returns_long_double(1.25L) == 2.5L);
    CHECK(returns_complex(3 + 4i) == 4 - 3i);
    CHECK(varies(3, 1.5, 2.5, 3.5) == 7.5);
    CHECK(varies(10, 1., 2., 3., 4., 5., 6., 7., 8., 9., 10.) == 55);
    char text[64];
    CHECK(formats(text, "%d %.1f %s %.2f", 1, 2.5, "three", 4.25) == 16 && !strcmp(text, "1 2.5 three 4.25"));
    return 42;
}
