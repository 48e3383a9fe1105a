// Opens a library by `dlopen`, and passes on to it. That library may need this one.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

int opener = 1;

static void (*keep_there)(int, int, void *);
static void *(*kept_there)(int, int);

__attribute__((constructor)) static void construct(void) {
    void *library = dlopen(getenv("OPENED"), RTLD_NOW);
    if (!library) {
        puts(dlerror());
        abort();
    }
    keep_there = (void (*)(int, int, void *))dlsym(library, "keep");
    kept_there = (void *(*)(int, int))dlsym(library, "kept");
}

void keep(int which, int index, void *what) { keep_there(which, index, what); }
void *kept(int which, int index) { return kept_there(which, index); }
