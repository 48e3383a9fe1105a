/* An indirect function that a constructor calls; its resolver gets what the psABI promises. */
#include "h.h"
#include <sys/auxv.h>
#include <sys/ifunc.h>
static int sum_of(const int *p, int n) {
  int s = 0;
  for (int i = 0; i < n; i++)
    s += p[i];
  return s;
}
static int no_sum(const int *p, int n) { return (void)p, (void)n, -1; }
typedef int sum_fn(const int *, int);
/* Loaded before the resolver runs: these are bound to the C library. */
static sum_fn *pick(uint64_t hwcap, const __ifunc_arg_t *more) {
  if (!(hwcap & _IFUNC_ARG_HWCAP) || more == NULL || more->_size < sizeof *more)
    return no_sum;
  return (hwcap & ~_IFUNC_ARG_HWCAP) == more->_hwcap && more->_hwcap != 0 ? sum_of : no_sum;
}
int sum(const int *, int) __attribute__((ifunc("pick")));
static int r;
__attribute__((constructor)) static void c(void) {
  int a[5] = {1, 2, 3, 4, 5};
  r = sum(a, 5);
}
int test(void) { return r == 15 ? 0 : 1; }
