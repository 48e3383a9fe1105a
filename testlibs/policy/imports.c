/* Refers to functions of the host in every way there is. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef OWN
/* Also a function of the C library. */
int system(const char *command) { return command ? 77 : 78; }
#endif
#ifdef MORE
/* Never called. */
extern int supplied(int);
int calls_more(const char *path) { return chdir(path) + chroot(path) + supplied(1); }
#endif
#ifdef WEAK
extern __typeof__(getppid) getppid __attribute__((weak));
int has_getppid(void) { return getppid != 0; }
#endif

int calls_system(const char *command) { return system(command); }
size_t length(const char *text) { return strlen(text); }

/* As the last act of a function: compilers make a jump of it. */
void *by_default(const char *name) { return dlsym(RTLD_DEFAULT, name); }
void *by_next(const char *name) {
    void *volatile found = dlsym(RTLD_NEXT, name);
    return found;
}
void *by_scope(const char *name) {
    void *volatile found = dlsym(RTLD_DEFAULT, name);
    return found;
}
void *by_library(const char *name) {
    void *volatile found = dlsym(dlopen("libc.so.6", RTLD_NOW), name);
    return found;
}
void *by_executable(const char *name) {
    void *volatile found = dlsym(dlopen(NULL, RTLD_NOW), name);
    return found;
}
void *by_itself(const char *name) {
    void *volatile found = dlsym(dlopen("imports", RTLD_NOW), name);
    return found;
}
void *by_version(const char *name) {
    void *volatile found = dlvsym(RTLD_DEFAULT, name, "GLIBC_2.2.5");
    return found;
}
/* By a dlsym that dlsym has found, in a library and in the scope. */
void *by_found(const char *name) {
    void *(*found)(void *, const char *);
    *(void **)&found = dlsym(dlopen("libc.so.6", RTLD_NOW), "dlsym");
    /* glibc before 2.34 */
    if (!found)
        *(void **)&found = dlsym(dlopen("libdl.so.2", RTLD_NOW), "dlsym");
    void *volatile address = found ? found(RTLD_DEFAULT, name) : NULL;
    return address;
}
const char *why(void) { return dlerror(); }

static void *in_destructor;
void **at_end;
__attribute__((destructor)) static void end(void) {
    in_destructor = dlsym(RTLD_DEFAULT, "system");
    if (at_end) *at_end = in_destructor;
}

void *opens(const char *path) {
    void *volatile opened = dlopen(path, RTLD_NOW);
    return opened;
}
/* As its last act. */
void *passes_on(const char *path) { return dlopen(path, RTLD_NOW); }
