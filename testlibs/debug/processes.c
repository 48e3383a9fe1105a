// What a debugger is shown of a process that a library forks. The marks are where tests set
// breakpoints.
#include <sys/wait.h>
#include <unistd.h>

int generation = 0;

__attribute__((noinline)) int in_child(int n) {
    generation++; // MARK child
    return n + generation;
}

__attribute__((noinline)) int in_parent(pid_t child) {
    int status = 0;
    waitpid(child, &status, 0); // MARK parent
    return WEXITSTATUS(status);
}

static __attribute__((noinline)) int forks(int n) {
    pid_t child = fork();
    if (child == 0)
        _exit(in_child(n)); // MARK forked
    return in_parent(child);
}

int entry(int n) {
    return forks(n) + generation;
}

// For a debugger that follows the child: the parent ends too, and says nothing.
int quiet(int n) {
    _exit(forks(n));
}
