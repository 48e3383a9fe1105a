// What the other runtime registers.
int jitted(int (*called)(int)) {
    int result = called(5);
    return result + 1;
}
