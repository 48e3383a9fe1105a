// Walks the list of libraries, and takes its time.
#define _GNU_SOURCE
#include <link.h>
static int visit(struct dl_phdr_info *info, size_t size, void *count) {
    for (volatile int i = 0; i < 3000; i++)
        ;
    return ++*(int *)count, 0;
}
int run(void) {
    int count = 0;
    return dl_iterate_phdr(visit, &count) == 0 && count > 2 ? 42 : __LINE__;
}
