/* Two references to a symbol: a word with an addend, and the GOT. */
#include <stdint.h>

char target[64];
char *word = target + 16;

void words(uintptr_t *out)
{
    out[0] = (uintptr_t)words;
    out[1] = (uintptr_t)word;
    out[2] = (uintptr_t)target;
}

int run(void)
{
    return 42;
}
