// A second unit for places.c, so that there are several of each record; part of it is not used.
struct node;
static int calls;
int places_table[4] = {1, 2, 3, 4};

__attribute__((noinline)) int places_other(int n, const struct node *node) {
    int *slot = &places_table[n & 3];
    calls += node ? *slot : n;
    return calls;
}

__attribute__((noinline)) int places_other_unused(int n) {
    int doubled = n + n;
    for (int i = 0; i < n; i++) {
        int step = doubled * i;
        doubled += places_other(step, 0);
    }
    return doubled;
}
