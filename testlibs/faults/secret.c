// N bytes that are zero at first.
static unsigned char buffer[N];
int looks_fresh(void)
{
    for (long i = 0; i < N; i++) if (buffer[i]) return 0;
    return 1;
}
// "keep it a secret", which the file does not have as such.
static volatile unsigned char mask = 0x55;
static const unsigned char masked[16] = {
    0x3e, 0x30, 0x30, 0x25, 0x75, 0x3c, 0x21, 0x75, 0x34, 0x75, 0x26, 0x30, 0x36, 0x27, 0x30, 0x21,
};
void keep_secret(void)
{
    unsigned char key = mask;
    for (long i = 0; i + 16 <= N; i++) buffer[i] = masked[i % 16] ^ key;
}
