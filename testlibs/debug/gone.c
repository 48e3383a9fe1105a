// The linker throws `gone` away (`--gc-sections`), and debug information goes on to describe it.
__attribute__((visibility("hidden"))) _Thread_local int gone = 5;

#ifdef WITH_ANOTHER
_Thread_local
#endif
int another = 77;

__attribute__((noinline)) int leaf(int n) {
    return n + another;
}

int entry(int n) {
    another++;
    return leaf(n);
}
