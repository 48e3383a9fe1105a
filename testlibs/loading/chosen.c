// Exports an IFUNC, and one that is not, whose resolvers look at relocated data of this library and of
// the library that it needs.
extern int limit;
extern int *limit_pointer;
static int small(void) { return 20; }
static int large(void) { return 21; }
static int own = 3;
int *volatile own_pointer = &own;
static int (*resolve(void))(void) { return *own_pointer == 3 && limit_pointer == &limit && limit == 9 ? large : small; }
int chosen(void) __attribute__((ifunc("resolve")));
