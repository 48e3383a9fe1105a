/* A library that is built for another machine: of each kind of relocation that compilers use on all machines, without
 * headers, which that machine's are not here. */

extern int dep(int);
extern int dep_value;
extern int nowhere(void) __attribute__((weak));
#ifdef IMPORT
extern int IMPORT(int);
#endif

__thread int counter = 7;
__thread long zeros[4];
int value = 5;
int *pointer = &value;
static int hidden = 3;
static int *own = &hidden;
int (*function)(int) = dep;

static int chosen(void) {
    return 42;
}

/* Chosen when the library is loaded. */
static int (*choose(void))(void) {
    return chosen;
}
int which(void) __attribute__((ifunc("choose")));
int here(void) __attribute__((ifunc("choose"), visibility("hidden")));

int calls(int number) {
    counter += number;
    zeros[1] = number;
    int result = dep(number) + dep_value + *own + *pointer;
    return result + (nowhere ? nowhere() : 0) + function(number);
}

int called(int number) {
    int twice = 2 * number;
#ifdef IMPORT
    twice += IMPORT(number);
#endif
    return twice + calls(number) + which() + here();
}
