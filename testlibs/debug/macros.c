// What a debugger expands in expressions: macros, of which one changes on the way.
#define TRIPLE(x) ((x) * 3)
#define JOIN(a, b) a##b
#define STATE 1

int lib_global = 7;

__attribute__((noinline)) int leaf(int n) {
    return TRIPLE(n) + STATE; // MARK macros_leaf
}
#undef STATE
#define STATE leaf(2)

int entry(int n) {
    return leaf(n) + STATE; // MARK macros_entry
}
