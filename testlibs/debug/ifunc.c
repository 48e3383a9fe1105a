// IFUNCs: an exported one, a local one, one whose function lies in the C library, and one that only the host
// calls.
#include <stdlib.h>

static int impl_a(int x) {
    return x + 1; // MARK impl_a
}
static int impl_b(int x) {
    return x + 2; // MARK impl_b
}
typedef int function(int);
static function *resolve_picked(void) { return impl_a; }
static function *resolve_local(void) { return impl_b; }
static function *resolve_late(void) { return impl_b; }
static function *resolve_far(void) { return abs; }
int picked(int x) __attribute__((ifunc("resolve_picked")));
static int local(int x) __attribute__((ifunc("resolve_local")));
int far(int x) __attribute__((ifunc("resolve_far")));
int late(int x) __attribute__((ifunc("resolve_late")));

int entry(int n) {
    int sum = picked(n); // MARK entry
    sum += picked(n);
    sum += local(n);
    return sum + far(-n);
}
