// Calls back into whoever opened it, and says goodbye.
#define _GNU_SOURCE
#include <dlfcn.h>
extern int application_add(int), application_goodbyes;
extern _Thread_local int application_variable;
int extension_data = 1000;
static _Thread_local int calls;
int extension(int x) {
    // It finds the application as it finds itself.
    if (dlsym(RTLD_DEFAULT, "application_goodbyes") != &application_goodbyes)
        return -1;
    if (application_variable != 7)
        return -2;
    calls++;
    return extension_data + application_add(x);
}
__attribute__((destructor)) static void leave(void) { application_goodbyes++; }
