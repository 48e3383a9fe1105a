// What runs when: letters written to descriptor 199, which whoever loads this reads.
//# flags: -Wl,-init,init -Wl,-fini,fini
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void note(const char *text) {
    if (write(199, text, strlen(text)) < 0)
        abort();
}

extern char **environ;
void init(int argc, char **argv, char **envp) { note("DT_INIT "); }
void fini(void) { note("DT_FINI"); }

static void from_atexit_1(void) { note("atexit-1 "); }
static void from_atexit_2(void) { note("atexit-2 "); }

static void with_arguments(int argc, char **argv, char **envp) {
    // The reference for the arguments is the kernel's own record of them.
    char line[4096];
    int file = open("/proc/self/cmdline", O_RDONLY);
    ssize_t size = read(file, line, sizeof line);
    close(file);
    int count = 0, right = size > 0 && !argv[argc];
    for (char *word = line; word < line + size; word += strlen(word) + 1, count++)
        right = right && count < argc && strcmp(word, argv[count]) == 0;
    note(right && count == argc ? "argv " : "wrong-argv ");
    note(envp == environ ? "envp " : "wrong-envp ");
}
__attribute__((section(".init_array"), used))
static void (*entry)(int, char **, char **) = with_arguments;

__attribute__((constructor(101))) static void early(void) { note("early "); }
__attribute__((constructor)) static void late(void) {
    note("late ");
    atexit(from_atexit_1);
    atexit(from_atexit_2);
}
__attribute__((destructor(101))) static void last(void) { note("last "); }
__attribute__((destructor)) static void first(void) { note("first "); }

int run(void) {
    note("run ");
    return 42;
}
