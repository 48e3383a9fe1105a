/* Much that the file does not have. */
static char room[64 << 20];

int run(void) {
    room[sizeof room / 2] = 42;
    return room[sizeof room / 2];
}
