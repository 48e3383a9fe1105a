// Compiled twice, for two files of one library: both have the inline function, and the linker keeps
// one of it.
inline __attribute__((noinline)) int twice(int n) {
    return 2 * n; // MARK twice
}

#ifdef OTHER
int other(int n) {
    return twice(n) + 1;
}
#else
int other(int n);
thread_local int first = 3;

extern "C" int entry(int n) {
    return twice(n) + other(n) + first; // MARK inline_entry
}
#endif
