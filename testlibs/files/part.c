// A library with the functions that macros give values to. Its constructor notes LETTER.
#include <unistd.h>

#ifdef LETTER
__attribute__((constructor)) static void note(void) {
    if (write(199, LETTER, 1) != 1) _exit(1);
}
#endif
#ifdef IMPL
int impl(void) { return IMPL; }
#endif
#ifdef OWN
int own(void) { return OWN; }
#endif
#ifdef EXTRA
int extra(void) { return EXTRA; }
#endif
#ifdef ABS
int abs(int number) { return ABS; }
#endif
#ifdef CALL
// Of a library that defines `impl` itself, or needs one that does.
int impl(void);
int CALL(void) { return impl(); }
#endif
