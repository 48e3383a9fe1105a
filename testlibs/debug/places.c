// What has addresses in DWARF, in C: inlined functions, lexical blocks, several ranges, variables
// that move, a thread-local, a static local, a label, computed jumps, calls whose arguments are known, code that is
// only needed if nothing is thrown away, cold code.
#include <stdlib.h>

#define TWICE(x) ((x) + (x))
#define LIMIT 100

struct node {
    struct node *next;
    int values[3];
    union {
        long number;
        double ratio;
    } either;
};

int places_global = 5;
const char places_text[] = "text";
const char *const places_pointer = places_text;
static struct node first = {0, {1, 2, 3}, {4}};
struct node *places_list = &first;
_Thread_local int places_thread = 3;
static _Thread_local long places_static_thread;

extern int places_other(int, const struct node *);

static inline __attribute__((always_inline)) int inlined(int a, int *out) {
    int product = a * 3;
    {
        int inner = product ^ places_global;
        if (inner > LIMIT) {
            int deeper = inner / 7;
            *out += deeper + places_other(deeper, places_list);
        }
        product += inner;
    }
    return product;
}

__attribute__((noinline, cold)) void places_fail(int code) {
    if (code == 77)
        abort();
    places_global ^= code;
}

static __attribute__((noinline)) int partly_cold(int n, int *out) {
    if (__builtin_expect(n < 0, 0)) {
        places_fail(n);
        for (int i = 0; i < n; i++)
            *out += places_other(i, 0);
        places_fail(n + 1);
    }
    return inlined(n, out);
}

__attribute__((noinline)) int places_unused(int n, const char *name) {
    int local = n;
    for (const char *p = name; *p; p++)
        local += *p;
    return local + places_other(n, &first);
}

int places_jumps(unsigned n) {
    static void *const targets[] = {&&one, &&two, &&three};
    static int visits;
    visits++;
    goto *targets[n % 3];
one:
    return TWICE(visits);
two:
    return places_thread++ + (int)places_static_thread;
three:
    return places_other(3, &first);
}

int run(int n) {
    int out = 0, sum = 0;
    const struct node *at = places_list;
    const int *numbers = places_list->values;
    for (int i = 0; i < n; i++) {
        int square = i * i;
        sum += partly_cold(square, &out);
        if (sum & 1) {
            int odd = sum + inlined(i, &out);
            sum = odd > LIMIT ? odd - numbers[i % 3] : places_other(odd, at);
        }
    }
    const char *kind = sum > 7 ? places_text : "other";
    return sum + out + kind[0] + places_jumps((unsigned)n);
}
