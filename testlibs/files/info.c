// Writes what dlinfo tells of this library, of the executable and of the C library, as text that does not
// depend on where things lie.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Thread_local int before = 6, first = 7;
static char *end;

static void say(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    end += vsprintf(end, format, arguments);
    va_end(arguments);
}

static void path(void *handle) {
    Dl_serinfo size = {0, 0};
    int result = dlinfo(handle, RTLD_DI_SERINFOSIZE, &size);
    say("size %d: %zu, %u\n", result, size.dls_size, size.dls_cnt);
    Dl_serinfo *info = malloc(size.dls_size);
    *info = size;
    result = dlinfo(handle, RTLD_DI_SERINFO, info);
    for (unsigned i = 0; i < info->dls_cnt; i++)
        say("path %d: %s, %u\n", result, info->dls_serpath[i].dls_name, info->dls_serpath[i].dls_flags);
    free(info);
}

static void about(void *handle, int is_own, int is_executable) {
    Lmid_t space = -7;
    int result = dlinfo(handle, RTLD_DI_LMID, &space);
    say("namespace %d: %ld\n", result, (long)space);
    struct link_map *map = 0;
    result = dlinfo(handle, RTLD_DI_LINKMAP, &map);
    say("map %d: %s\n", result, map->l_name);
    if (is_own) {
        Dl_info here;
        say("base %d %d\n", dladdr((void *)about, &here), (char *)map->l_addr == (char *)here.dli_fbase);
    }
    path(handle);
    static char folder[8192];
    // The C library has no folder of the executable before a $ORIGIN asks for it.
    result = is_executable ? 0 : dlinfo(handle, RTLD_DI_ORIGIN, folder);
    say("origin %d: %s\n", result, folder);
    for (int i = 0; i < 2; i++) {
        size_t module = -1;
        void *block = &module;
        result = dlinfo(handle, RTLD_DI_TLS_MODID, &module);
        say("module %d: %d\n", result, module != 0);
        result = dlinfo(handle, RTLD_DI_TLS_DATA, &block);
        say("block %d: %d\n", result, block != 0);
        // From the first use of a variable on, the thread has a block.
        if (is_own && i) say("first at %d of it\n", (int)((char *)&first - (char *)block));
        volatile int *used = &first;
        say("value %d\n", *used);
    }
#ifdef RTLD_DI_PHDR /* glibc 2.36 */
    ElfW(Phdr) *headers = 0;
    result = dlinfo(handle, RTLD_DI_PHDR, &headers);
    say("headers %d:", result);
    for (int i = 0; i < result; i++) say(" %x+%lx", headers[i].p_type, (long)headers[i].p_memsz);
    say("\n");
#endif
    for (int request = -1; request < 40; request++) {
        if (request == RTLD_DI_CONFIGADDR || request == 7 || request == 8 || request <= 0 || request > 11) {
            dlsym(handle, "no such symbol");
            result = dlinfo(handle, request, &map);
            say("request %d: %d, %s\n", request, result, dlerror());
        }
    }
    // A success leaves no error of another call.
    dlsym(handle, "no such symbol");
    dlinfo(handle, RTLD_DI_LMID, &space);
    const char *error = dlerror();
    say("error: %s\n", error ? error : "none");
}

int describe(const char *own_name, char *text) {
    end = text;
    void *own = dlopen(own_name, RTLD_LAZY), *all = dlopen(0, RTLD_LAZY);
    void *libc = dlopen("libc.so.6", RTLD_LAZY);
    if (!own || !all || !libc) return 1;
    about(own, 1, 0);
    about(all, 0, 1);
    about(libc, 0, 0);
    dlclose(own);
    return 42;
}
