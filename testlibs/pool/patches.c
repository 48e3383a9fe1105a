// Code that patches itself, and data that becomes read-only. PAD: bytes of further code.
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#define TEXT(number) #number
#define ZEROES(number) ".section .text.pad,\"ax\",@progbits\n.zero " TEXT(number) "\n.text\n"
__asm__(ZEROES(PAD));

#define FUNCTION __attribute__((noinline, aligned(16)))
FUNCTION int answer(void) { return 0x11111111; }
FUNCTION int other(void) { return 0x22222222; }

static int value[2048] = {5};

FUNCTION int patch(void) {
    unsigned char *code = (unsigned char *)answer;
    long size = sysconf(_SC_PAGESIZE);
    void *page = (void *)((uintptr_t)code & -size);
    if (mprotect(page, 2 * size, PROT_READ | PROT_WRITE | PROT_EXEC)) return errno;
    memcpy(code, (unsigned char *)other, 16);
    if (mprotect(page, 2 * size, PROT_READ | PROT_EXEC)) return errno;
    __builtin___clear_cache((char *)code, (char *)code + 16);
    return 0;
}

int freeze(void) {
    value[1024] = 6;
    return mprotect((void *)((uintptr_t)&value[1024] & -4096), 4096, PROT_READ) ? errno : 0;
}

int thaw(void) { return value[1024]; }
