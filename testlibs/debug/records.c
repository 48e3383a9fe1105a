// What a debugger is shown of C's types and values: structures, unions, bit fields, arrays,
// pointers to functions, macros, an inlined function. The marks are where tests set breakpoints.
#include <complex.h>
#include <wchar.h>

#define LIMIT 40
#define SCALED(x) ((x) * LIMIT)

enum permission { READ = 1, WRITE = 2, EXECUTE = 4 };

struct point {
    short x;
    int y;
};

union number {
    int whole;
    float real;
    unsigned char bytes[4];
};

typedef int operation(int, int);

struct record {
    char tag;
    struct point place;
    unsigned ready : 1, level : 3;
    union number value;
    enum permission allowed;
    int matrix[2][3];
    operation *combine;
    const struct record *next;
    char name[12];
    double ratio;
};

static int add(int a, int b) {
    return a + b;
}

static const struct record last = {.tag = 'z', .name = "last"};
struct record first = {
    .tag = 'a',
    .place = {-2, 3},
    .ready = 1,
    .level = 5,
    .value = {.real = 1.0f},
    .allowed = READ | EXECUTE,
    .matrix = {{1, 2, 3}, {4, 5, 6}},
    .combine = add,
    .next = &last,
    .name = "first",
    .ratio = 0.5,
};

const wchar_t wide[] = L"wide";
double complex wave = 1.0 + 2.0 * I;
long double precise = 1.25L;
const char *words[] = {"one", "two", "three", 0};

__attribute__((noinline)) struct point moved(struct point from, int by) {
    from.x += by; // MARK moved
    from.y += by;
    return from;
}

__attribute__((noinline)) double half(int n) {
    return n / 2.0; // MARK half
}

static inline __attribute__((always_inline)) int clamped(int n) {
    int limited = n > LIMIT ? LIMIT : n;
    return limited + first.level; // MARK inlined
}

__attribute__((noinline)) int total(const struct record *of, int by) {
    static int calls = 0;
    struct point here = moved(of->place, by); // MARK total
    calls++;
    int sum = clamped(SCALED(by)) + calls;
    for (int row = 0; row < 2; row++)
        sum = of->combine(sum, of->matrix[row][row]); // MARK loop
    return sum + here.x + (int)half(by); // MARK sum
}

__attribute__((destructor)) static void gone(void) {
    first.level = 0; // MARK destructor
}

int entry(int n) {
    int result = total(&first, n); // MARK entry
    return result;                 // MARK result
}
