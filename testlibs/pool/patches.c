// Code that patches itself, and data that becomes read-only. PAD: bytes of further code.
#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#define TEXT(number) #number
#define ZEROES(number) ".section .text.pad,\"ax\",@progbits\n.zero " TEXT(number) "\n.text\n"
__asm__(ZEROES(PAD));

__attribute__((noinline)) int answer(void) { return 0x11111111; }

static int value[2048] = {5};

int patch(void) {
    unsigned char *code = (unsigned char *)answer;
    void *page = (void *)((uintptr_t)code & -4096);
    if (mprotect(page, 8192, PROT_READ | PROT_WRITE | PROT_EXEC)) return errno;
    for (int i = 0; i < 16; i++)
        if (*(int *)(code + i) == 0x11111111) {
            *(int *)(code + i) = 0x22222222;
            break;
        }
    if (mprotect(page, 8192, PROT_READ | PROT_EXEC)) return errno;
    return 0;
}

int freeze(void) {
    value[1024] = 6;
    return mprotect((void *)((uintptr_t)&value[1024] & -4096), 4096, PROT_READ) ? errno : 0;
}

int thaw(void) { return value[1024]; }
