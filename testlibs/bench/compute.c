// A compute loop as libraries have them: exported globals, and exported functions that are called
// through the procedure linkage table.
unsigned long state = 88172645463325252;
double cells[64 * 64];

unsigned long next(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

unsigned long compute(unsigned long rounds) {
    double sum = 0;
    for (unsigned long round = 0; round < rounds; round++) {
        cells[next() % (64 * 64)] += 1.0;
        for (int at = 0; at < 64; at++)
            sum += cells[at * 64 + round % 64] * 0.5;
    }
    return (unsigned long)sum;
}
