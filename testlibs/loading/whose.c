// With NUMBER, one of the libraries that define it; without, one that refers to it.
int whose(void);

#ifdef NUMBER
int whose(void) {
    return NUMBER;
}
#else
int run(void) {
    return whose();
}
#endif
