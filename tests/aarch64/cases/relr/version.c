/* Names a version of the C library that `version.py` replaces, and the name that it puts there. */
extern int glob(void) __attribute__((weak));
int (*of_a_later_version)(void) = glob;
int GLIBC_ABI_DT_RELR;
