// An image whose memory takes all the ways that there are, by what is defined.
#include "../loading/check.h"
static int one = 1;
static int *const fixed = &one;      // RELRO
static int *volatile moved = &one;   // relocated data
static int counter;                  // .bss
static int constructed;
__attribute__((constructor)) static void construct(void) { constructed++; }
#ifdef LARGE                         // enough text to be shared between instances
const char filler[LARGE] = {1};
char data[LARGE] = {2};
#endif
#ifdef IFUNC
static int (*resolve(void))(void);
static int chosen(void) __attribute__((ifunc("resolve")));
static int two(void) { return 2; }
static int (*resolve(void))(void) { return *fixed == 1 ? two : 0; }
#endif
#ifdef INITIAL_EXEC
static __thread int of_thread __attribute__((tls_model("initial-exec"))) = 7;
#else
static __thread int of_thread = 7;
#endif
#ifdef NEEDS
int of_dependency(void);
#endif
int of_image(void) { return 3; }
// 42 if all is as it has to be.
int run(void) {
    CHECK(constructed == 1);
    CHECK(one == 1 && *fixed == 1 && *moved == 1);
    CHECK(of_thread == 7);
    CHECK(counter == 0);
#ifdef LARGE
    CHECK(filler[0] == 1 && filler[LARGE - 1] == 0 && data[0] == 2 && data[LARGE - 1] == 0);
#endif
#ifdef IFUNC
    CHECK(chosen() == 2);
#endif
#ifdef NEEDS
    CHECK(of_dependency() == 3);
#endif
    return 42;
}
// What the next image at this place must not find.
void spoil(void) {
    one = of_thread = counter = 9;
    moved = 0;
#ifdef LARGE
    for (int i = 0; i < LARGE; i++) data[i] = 0x5a;
#endif
}
