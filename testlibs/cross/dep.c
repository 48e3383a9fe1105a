/* What cross/library.c needs. */

int dep_value = 11;

int dep(int number) {
    return number + 1;
}
