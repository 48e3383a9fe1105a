/* 128 KiB that are not written, so that instances share them; and for each instance a word and 8 KiB of pointers. */
static const unsigned char table[1 << 17] = {[0] = 1, [sizeof(table) - 1] = 41};

#define P4(at) table + (at), table + (at) + 1, table + (at) + 2, table + (at) + 3
#define P16(at) P4(at), P4((at) + 4), P4((at) + 8), P4((at) + 12)
#define P64(at) P16(at), P16((at) + 16), P16((at) + 32), P16((at) + 48)
#define P256(at) P64(at), P64((at) + 64), P64((at) + 128), P64((at) + 192)
const unsigned char *pointers[] = {P256(0), P256(256), P256(512), P256(768)};

static int count;

/* How often it was called, and a byte of the table: its first, 1, or its last, 41. */
int counts(int first) {
    count++;
    return (first ? *pointers[0] : table[sizeof(table) - 1]) + count;
}
