# A C program: what callers of `dlopen` rely on.
# Packages: gcc libc6-dev zlib1g
set -eu
if [ "$1" = build ]; then
    mkdir own environment callers
    cat >plugin.c <<'END'
#include <stdio.h>
int global_value = 1;
static int calls;
__thread int per_thread = 5;
int host_value(void);
int plugin(void) { return ++calls + host_value() + per_thread++; }
const char *versioned_1(void) { return "first"; }
const char *versioned_2(void) { return "second"; }
__asm__(".symver versioned_1,versioned@V1\n.symver versioned_2,versioned@@V2");
__attribute__((constructor)) static void begin(void) { puts("plugin begins"); }
__attribute__((destructor)) static void end(void) { puts("plugin ends"); }
END
    echo 'V1 { global: versioned; global_value; plugin; per_thread; local: *; }; V2 { global: versioned; } V1;' >plugin.map
    gcc -shared -fPIC -Wl,--version-script=plugin.map -Wl,-soname,libplugin.so.1 -o own/libplugin.so plugin.c
    echo 'int shadowed(void) { return 2; } int only_global(void) { return 3; }' |
        gcc -shared -fPIC -o environment/libglobal.so -xc -
    echo 'int only_global(void); int user(void) { return only_global() * 10; }' |
        gcc -shared -fPIC -o own/libuser.so -xc -
    echo 'int found_by(void) { return 1; }' | gcc -shared -fPIC -o callers/libwhich.so -xc -
    echo 'int found_by(void) { return 2; }' | gcc -shared -fPIC -o own/libwhich.so -xc -
    echo 'int missing(void); int bad(void) { return missing(); }' | gcc -shared -fPIC -o own/libbad.so -xc -
    echo 'int missing(void); int lazy(void) { return 7; } int bad(void) { return missing(); }' |
        gcc -shared -fPIC -Wl,-z,lazy -o own/liblazy.so -xc -
    cat >opener.c <<'END'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
static int hidden_value = 9;
int local_to_opener(void) { return hidden_value; }
void *opens(const char *name, int flags) { void *handle = dlopen(name, flags); return handle; }
void *finds(void *handle, const char *name) { void *found = dlsym(handle, name); return found; }
int shadowed(void) { return 1; }
END
    gcc -shared -fPIC -Wl,-rpath,"\$ORIGIN/callers" -o libopener.so opener.c
    cat >main.c <<'END'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
void *opens(const char *name, int flags);
void *finds(void *handle, const char *name);
int host_value(void) { return 100; }
static int call(void *handle, const char *name) {
    int (*function)(void) = (int (*)(void))dlsym(handle, name);
    if (!function) { printf("%s\n", strstr(dlerror(), "undefined symbol")); return -1; }
    return function();
}
static const char *file(const char *path) { return path ? strrchr(path, '/') + 1 : "none"; }
static void *in_thread(void *handle) { printf("in a thread %d\n", call(handle, "plugin")); return 0; }
int main(void) {
    setvbuf(stdout, 0, _IONBF, 0);
    void *none = dlopen("libnone.so", RTLD_NOW);
    printf("%p %s\n", none, dlerror());
    printf("%s\n", dlerror() ? "again" : "no error");
    dlopen("./none/libnone.so", RTLD_NOW), puts(dlerror());
    printf("%p\n", dlopen("libplugin.so", RTLD_NOW | RTLD_NOLOAD)), dlerror();
    void *plugin = dlopen("libplugin.so", RTLD_NOW);
    if (!plugin) { puts(dlerror()); return 1; }
    printf("%d %d\n", call(plugin, "plugin"), call(plugin, "no_such_name"));
    /* The same library, by all of its names. */
    void *names[4] = {dlopen("libplugin.so", RTLD_LAZY), dlopen("own/libplugin.so", RTLD_NOW),
        dlopen("libplugin.so.1", RTLD_NOW), dlopen("./own/../own/libplugin.so", RTLD_NOW | RTLD_NOLOAD)};
    for (int i = 0; i < 4; i++) printf("%s ", names[i] == plugin ? "same" : "other");
    const char *(*versioned)(void) = dlvsym(plugin, "versioned", "V1");
    printf("%s ", versioned());
    versioned = dlsym(plugin, "versioned");
    printf("%s %p\n", versioned(), dlvsym(plugin, "versioned", "V3"));
    printf("%s\n", dlerror() ? "an error" : "none");
    Dl_info info;
    int is_found = dladdr(dlsym(plugin, "plugin"), &info);
    printf("%d %s %s\n", is_found, file(info.dli_fname), info.dli_sname);
    struct link_map *map = 0;
    int is_refused = dlinfo(plugin, RTLD_DI_LINKMAP, &map);
    printf("%d %s\n", is_refused, file(map->l_name));
    *(int *)dlsym(plugin, "per_thread") = 50;
    pthread_t thread;
    pthread_create(&thread, 0, in_thread, plugin), pthread_join(thread, 0);
    printf("%d\n", call(plugin, "plugin"));
    for (int i = 0; i < 4; i++) printf("%d ", dlclose(names[i]));
    printf("closed\n");
    dlclose(plugin);
    printf("%s\n", dlopen("libplugin.so", RTLD_NOW | RTLD_NOLOAD) ? "still there" : "gone"), dlerror();
    plugin = dlopen("libplugin.so", RTLD_NOW | RTLD_NODELETE);
    printf("anew %d\n", call(plugin, "plugin"));
    dlclose(plugin);
    printf("%s\n", dlopen("libplugin.so", RTLD_NOW | RTLD_NOLOAD) ? "still there" : "gone");
    /* Who calls decides where is searched. */
    void *which = dlopen("libwhich.so", RTLD_NOW);
    printf("%d ", call(which, "found_by"));
    dlclose(which);
    printf("%d\n", call(opens("libwhich.so", RTLD_NOW), "found_by"));
    printf("%s ", dlsym(RTLD_DEFAULT, "only_global") ? "found" : "not found");
    void *global = dlopen("libglobal.so", RTLD_LAZY);
    printf("%s ", dlsym(RTLD_DEFAULT, "only_global") ? "found" : "not found");
    dlopen("libglobal.so", RTLD_LAZY | RTLD_NOLOAD | RTLD_GLOBAL);
    int (*only_global)(void) = dlsym(RTLD_DEFAULT, "only_global");
    printf("%d %d %d\n", only_global ? only_global() : -1, call(dlopen(0, RTLD_NOW), "only_global"),
        call(dlopen("libuser.so", RTLD_NOW), "user"));
    int (*shadowed)(void) = finds(RTLD_DEFAULT, "shadowed");
    printf("%d %d %s %s\n", shadowed(), call(global, "shadowed"), finds(RTLD_NEXT, "host_value") ? "next" : "none",
        finds(RTLD_NEXT, "malloc") ? "next" : "none");
    printf("%s\n", strstr(dlopen("libbad.so", RTLD_NOW) ? "opened" : dlerror(), "undefined symbol: missing"));
    printf("%d\n", call(dlopen("liblazy.so", RTLD_LAZY), "lazy"));
    FILE *text = fopen("text.so", "w");
    fputs("this is text and no library, and longer than the header of one would be", text), fclose(text);
    puts(strrchr(dlopen("./text.so", RTLD_NOW) ? "/opened" : dlerror(), '/'));
    puts(dlopen("libm.so.6", RTLD_NOW) ? "libm" : dlerror());
    return 3 * !dlsym(dlopen("libz.so.1", RTLD_NOW), "zlibVersion");
}
END
    gcc -rdynamic -o main main.c -L. -lopener -ldl -pthread -Wl,-rpath,"\$ORIGIN:\$ORIGIN/own" -Wl,--enable-new-dtags
    exit 0
fi
LD_LIBRARY_PATH=environment ./main
