// A second library with functions of the same names as clib.c's.
__attribute__((noinline)) int leaf(int a, int b) {
    int twin_local = a - b;
    return twin_local; // MARK leaf
}

int entry(int n) {
    return leaf(n, 1) + 1;
}
