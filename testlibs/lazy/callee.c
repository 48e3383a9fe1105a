// What calls.c calls.
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
struct big { long words[9]; };
struct pair { long whole; double part; };
int all_integers(int a, long b, short c, char d, unsigned long e, long f, long g, long h) {
    return ((((((a * 10 + b) * 10 + c) * 10 + d) * 10 + e) * 10 + f) * 10 + g) * 10 + h;
}
double all_doubles(double a, double b, double c, double d, double e, double f, double g, double h, double i) {
    return a + b * 2 + c * 3 + d * 4 + e * 5 + f * 6 + g * 7 + h * 8 + i * 9;
}
int mixed(int a, double b, int c, double d, const char *e, float f, long double g) {
    return a == 1 && b == 2.5 && c == 3 && d == 4.5 && !strcmp(e, "five") && f == 6.5f && g == 7.5L ? 42 : 0;
}
struct big returns_big(long from, long by) {
    struct big big;
    for (int i = 0; i < 9; i++)
        big.words[i] = from + by * i;
    return big;
}
struct pair returns_pair(long whole, double part) { return (struct pair){whole + 1, part * 2}; }
long double returns_long_double(long double x) { return x * 2; }
_Complex double returns_complex(_Complex double x) { return x * -1i; }
double varies(int count, ...) {
    // The compiler saves vector registers here only if al says that there are any.
    double sum = 0;
    va_list list;
    va_start(list, count);
    while (count--)
        sum += va_arg(list, double);
    va_end(list);
    return sum;
}
int formats(char *to, const char *format, ...) {
    va_list list;
    va_start(list, format);
    int result = vsprintf(to, format, list);
    va_end(list);
    return result;
}
