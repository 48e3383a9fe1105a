// Opens extensions that call back into it: as an interpreter does.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#define CHECK(condition) do { if (!(condition)) return __LINE__; } while (0)

int application_value = 100;
_Thread_local int application_variable = 7;
int application_goodbyes;
int application_add(int x) { return application_value += x; }
static void *handle;

void *open_it(const char *path, int flags) { return dlopen(path, flags); }
int close_it(void *handle) { return dlclose(handle); }
const char *last_error(void) { return dlerror(); }

// Opens and uses the extension at `path`; it stays open.
int extend(const char *path) {
    application_value = 100, application_goodbyes = 0;
    handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        fprintf(stderr, "%s\n", dlerror());
        return -1;
    }
    int (*extension)(int) = (int (*)(int))dlsym(handle, "extension");
    CHECK(extension && extension(5) == 1105 && application_value == 105);
    CHECK(dlsym(handle, "extension_data"));
    CHECK(!dlsym(handle, "extension_lacks_this"));
    const char *text = dlerror();
    CHECK(text && strstr(text, "undefined symbol: extension_lacks_this"));
    CHECK(!dlerror());
    // What a look-up by handle gives includes what the library needs.
    Dl_info info;
    CHECK(dladdr((void *)extension, &info) && !strcmp(info.dli_sname, "extension"));
    CHECK(info.dli_saddr == (void *)extension && strstr(info.dli_fname, path));
    // The same again.
    CHECK(dlopen(path, RTLD_NOW | RTLD_LOCAL) == handle);
    CHECK(dlclose(handle) == 0 && application_goodbyes == 0);
    CHECK(extension(0) == 1105);
    return 42;
}

int withdraw(void) {
    application_goodbyes = 0;
    CHECK(dlclose(handle) == 0);
    CHECK(application_goodbyes == 1);
    handle = 0;
    return 42;
}
