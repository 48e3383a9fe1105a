// Data that is relocated.
int limit = 9;
int *limit_pointer = &limit;
