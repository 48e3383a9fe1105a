// Keeps pointers for its host: in initialised data, in `.bss`, and in thread-local variables.
#include <stddef.h>

#define COUNT 50

static void *volatile data[COUNT + 1] = {[COUNT] = (void *)&data};
static void *volatile bss[COUNT];
static _Thread_local void *volatile tls[COUNT];
static _Thread_local void *volatile tls_data[COUNT + 1] = {[COUNT] = (void *)&data};

static void *volatile *place(int which) {
    switch (which) {
    case 'd': return data;
    case 'b': return bss;
    case 't': return tls;
    default: return tls_data;
    }
}

void *address(int which) { return (void *)place(which); }
void keep(int which, int index, void *what) { place(which)[index] = what; }
void *kept(int which, int index) { return place(which)[index]; }

#ifdef OF_OPENER
extern int opener;
int *needed_of_opener(void) { return &opener; }
#endif

#ifdef MISSING
void missing_everywhere(void);
void call_missing(void) { missing_everywhere(); }
#endif

#ifdef CONSTRUCTED
void *host_new(void);
__attribute__((constructor)) static void construct(void) {
    for (int i = 0; i < COUNT; i++) data[i] = host_new();
}
#endif
