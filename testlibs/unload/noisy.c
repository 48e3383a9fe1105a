// Notes its constructor and its destructor, by NAME, through descriptor 199.
#include <unistd.h>
#define TEXT_(name) #name
#define TEXT(name) TEXT_(name)
static void note(const char *sign) {
    if (write(199, sign, 1) != 1 || write(199, TEXT(NAME), sizeof TEXT(NAME) - 1) < 1 || write(199, " ", 1) != 1)
        _exit(9);
}
#ifdef NEEDS
int NEEDS(void);
int also_called(void) { return NEEDS(); }
#endif
#ifdef NEEDS_TOO
int NEEDS_TOO(void);
int called_too(void) { return NEEDS_TOO(); }
#endif
int NAME(void) { return 42; }
int run(void) {
#ifdef NEEDS
    return NEEDS();
#else
    return 42;
#endif
}
__attribute__((constructor)) static void construct(void) { note("+"); }
__attribute__((destructor)) static void destruct(void) { note("-"); }
