// A library that defines what `example.c` leaves open, and a function that the C library has, too.
int roll(void) {
    return 6;
}

int rand(void) {
    return 4;
}

int random_number(void) {
    return rand();
}
