// N bytes that are zero at first, and FILLED bytes that are only read.
#ifdef FILLED
const char filler[FILLED] = {1};
#endif
static unsigned char buffer[N];
int looks_fresh(void)
{
    for (long i = 0; i < N; i++) if (buffer[i]) return 0;
    return 1;
}
// What the test looks for, which neither this file nor the library has as such.
static volatile unsigned char mask = 0x55;
static const unsigned char masked[16] = {
    0x3e, 0x30, 0x30, 0x25, 0x75, 0x3c, 0x21, 0x75, 0x34, 0x75, 0x26, 0x30, 0x36, 0x27, 0x30, 0x21,
};
void keep_secret(void)
{
    unsigned char key = mask;
    for (long i = 0; i + 16 <= N; i++) buffer[i] = masked[i % 16] ^ key;
}
