// Defines it.
int late(int x) { return x + 1; }
