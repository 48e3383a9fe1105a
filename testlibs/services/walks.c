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

// Whether this thread has a block of the thread-local variables of the library that is called so: -1 if
// there is no such library.
#include <string.h>
static const char *wanted;
static int find(struct dl_phdr_info *info, size_t size, void *has) {
    if (info->dlpi_tls_modid && !strcmp(info->dlpi_name, wanted))
        *(int *)has = info->dlpi_tls_data != 0;
    return 0;
}
int has_block(const char *name) {
    int has = -1;
    wanted = name;
    dl_iterate_phdr(find, &has);
    return has;
}
