// Asks the process for symbols and for its libraries, as an image of a fleet does.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>

// The address of a symbol in the scope of this library. A tail call would be one of the caller.
void *ask(const char *name) {
  void *volatile found = dlsym(RTLD_DEFAULT, name);
  return found;
}

static int count(struct dl_phdr_info *info, size_t size, void *data) {
  (void)size;
  *(int *)data += info->dlpi_phnum != 0;
  return 0;
}

// The number of libraries in the process.
int walk(void) {
  int libraries = 0;
  dl_iterate_phdr(count, &libraries);
  return libraries;
}

// Shows all libraries to somebody else.
int show(int (*visit)(struct dl_phdr_info *, size_t, void *), void *data) {
  return dl_iterate_phdr(visit, data);
}

// What only this library defines.
int in_the_last(void) { return 1; }
