// What a debugger is shown of a library without thread-local variables.
struct pair {
    int first;
    const char *name;
    double ratio;
};

int lib_global = 7;

__attribute__((noinline)) int leaf(int n) {
    struct pair both = {n * 3, "pair", 1.5};
    lib_global += both.first; // MARK bare_leaf
    return lib_global + both.name[0];
}

int entry(int n) {
    return leaf(n) + 1; // MARK bare_entry
}
