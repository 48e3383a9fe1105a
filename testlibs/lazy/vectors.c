// Vectors passed by value through a lazy PLT, at a first call each. WIDTH: 16, 32 or 64 bytes.
#define CHECK(condition) do { if (!(condition)) return __LINE__; } while (0)
typedef double vector __attribute__((vector_size(WIDTH)));
#define LANES (WIDTH / 8)
vector eight(vector, vector, vector, vector, vector, vector, vector, vector);
#ifdef DEFINE
vector eight(vector a, vector b, vector c, vector d, vector e, vector f, vector g, vector h) {
    return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h;
}
#else
static vector ramp(double from) {
    vector result;
    for (int i = 0; i < LANES; i++)
        result[i] = from + i;
    return result;
}
int run(void) {
    vector sum = eight(ramp(1), ramp(2), ramp(3), ramp(4), ramp(5), ramp(6), ramp(7), ramp(8));
    for (int i = 0; i < LANES; i++)
        CHECK(sum[i] == 204 + 36 * i);
    return 42;
}
#endif
