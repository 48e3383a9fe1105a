// A runtime that libraries report themselves to, as D's: it looks for the library whose data it is
// given.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdint.h>

struct wanted { uintptr_t address; int found; };
static int visit(struct dl_phdr_info *info, size_t size, void *data) {
    struct wanted *wanted = data;
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_LOAD
            && wanted->address - info->dlpi_addr - info->dlpi_phdr[i].p_vaddr < info->dlpi_phdr[i].p_memsz)
            wanted->found++;
    return 0;
}

int reported;
void _d_dso_registry(void *data) {
    struct wanted wanted = {(uintptr_t)data, 0};
    Dl_info info;
    dl_iterate_phdr(visit, &wanted);
    if (wanted.found != 1 || !dladdr(data, &info))
        return;
    void *handle = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    if (handle) {
        reported++;
        dlclose(handle);
    }
}
