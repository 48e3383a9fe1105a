// Thread-local variables at a fixed place, SIZE bytes of them.
static __thread unsigned char block[SIZE] __attribute__((tls_model("initial-exec"))) = {FIRST};
void fill(int value) { for (int i = 0; i < SIZE; i++) block[i] = value; }
// How many of the bytes behind the block, up to `most`, have this value.
int behind(int value, int most)
{
    int found = 0;
    unsigned char *volatile end = block + SIZE;
    for (int i = 0; i < most; i++) found += end[i] == value;
    return found;
}
