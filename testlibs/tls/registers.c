// The access to a variable through a TLS descriptor changes no register but rax (and the flags),
// at a thread's first access too, whatever the alignment of the stack. `run` is for a thread that
// has not run it.
// WIDE: 64 for zmm, 32 for ymm, 16 for xmm; SHIFT: how far the stack is from its alignment.
#include "check.h"
#include <stdint.h>
#include <string.h>
__thread long variable = 77;

#define REPEAT16(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11) M(12) M(13) M(14) M(15)
#define REPEAT_HIGH(M) M(16) M(17) M(18) M(19) M(20) M(21) M(22) M(23) M(24) M(25) M(26) M(27) M(28) M(29) M(30) M(31)
#define MASKS(M) M(1) M(2) M(3) M(4) M(5) M(6) M(7)
#if WIDE == 64
#define COUNT 32
#define LOAD(n) "vmovdqu64 " #n "*64(%%rdi), %%zmm" #n "\n"
#define SAVE(n) "vmovdqu64 %%zmm" #n ", " #n "*64(%%rsi)\n"
#define LOAD_MASK(n) "kmovq 2048+" #n "*8(%%rdi), %%k" #n "\n"
#define SAVE_MASK(n) "kmovq %%k" #n ", 2048+" #n "*8(%%rsi)\n"
#define LOAD_ALL REPEAT16(LOAD) REPEAT_HIGH(LOAD) MASKS(LOAD_MASK)
#define SAVE_ALL REPEAT16(SAVE) REPEAT_HIGH(SAVE) MASKS(SAVE_MASK)
#elif WIDE == 32
#define COUNT 16
#define LOAD(n) "vmovdqu " #n "*64(%%rdi), %%ymm" #n "\n"
#define SAVE(n) "vmovdqu %%ymm" #n ", " #n "*64(%%rsi)\n"
#define LOAD_ALL REPEAT16(LOAD)
#define SAVE_ALL REPEAT16(SAVE)
#else
#define COUNT 16
#define LOAD(n) "movdqu " #n "*64(%%rdi), %%xmm" #n "\n"
#define SAVE(n) "movdqu %%xmm" #n ", " #n "*64(%%rsi)\n"
#define LOAD_ALL REPEAT16(LOAD)
#define SAVE_ALL REPEAT16(SAVE)
#endif

struct vectors { unsigned char bytes[32][64]; uint64_t masks[8]; };

int run(void) {
    static struct vectors before;
    struct vectors after;
    // rcx, rdx, rsi, rdi, r8 to r11, rbx, r12 to r15, and how far rsp has moved.
    uint64_t general[15];
    for (int i = 0; i < 32; i++)
        for (int j = 0; j < 64; j++)
            before.bytes[i][j] = i * 64 + j * 7 + 1;
    for (int i = 0; i < 8; i++)
        before.masks[i] = 0x0123456789abcdef * (i + 1);
    memset(&after, 0, sizeof after);
    uint64_t distance;
    register struct vectors *from __asm__("rdi") = &before;
    register struct vectors *to __asm__("rsi") = &after;
    register uint64_t *words __asm__("rdx") = general;
    __asm__ volatile(
        LOAD_ALL
        // Past the red zone; everything that must come back lies on the stack.
        "lea -256(%%rsp), %%rsp\n push %%rbx\n push %%rbp\n push %%r12\n push %%r13\n push %%r14\n push %%r15\n"
        "push %%rdx\n push %%rsi\n"
        "mov %%rsp, %%rbx\n and $-64, %%rsp\n sub $" SHIFT ", %%rsp\n push %%rbx\n"
        "mov $101, %%ecx\n mov $102, %%edx\n mov $103, %%esi\n mov $104, %%edi\n mov $108, %%r8d\n"
        "mov $109, %%r9d\n mov $110, %%r10d\n mov $111, %%r11d\n mov $105, %%ebx\n mov %%rsp, %%rbp\n"
        "mov $112, %%r12d\n mov $113, %%r13d\n mov $114, %%r14d\n mov $115, %%r15d\n"
        "lea variable@tlsdesc(%%rip), %%rax\n"
        "call *variable@tlscall(%%rax)\n"
        "xchg %%rbp, %%rsp\n sub %%rsp, %%rbp\n"
        // Nothing but the distance is left to keep; words that must be looked at first go down.
        "push %%rbp\n push %%r15\n push %%r14\n push %%r13\n push %%r12\n push %%rbx\n push %%r11\n"
        "push %%r10\n push %%r9\n push %%r8\n push %%rdi\n push %%rsi\n push %%rdx\n push %%rcx\n"
        "mov 112(%%rsp), %%r8\n mov (%%r8), %%rsi\n mov 8(%%r8), %%rdx\n"
        "xor %%ecx, %%ecx\n"
        "1: mov (%%rsp, %%rcx, 8), %%r9\n mov %%r9, (%%rdx, %%rcx, 8)\n inc %%ecx\n cmp $14, %%ecx\n jne 1b\n"
        SAVE_ALL
        "lea 16(%%r8), %%rsp\n"
        "pop %%r15\n pop %%r14\n pop %%r13\n pop %%r12\n pop %%rbp\n pop %%rbx\n lea 256(%%rsp), %%rsp\n"
        : "=&a"(distance), "+r"(from), "+r"(to), "+r"(words)
        :
        : "rcx", "r8", "r9", "r10", "r11", "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5",
          "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"
#if WIDE == 64
          , "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26",
          "xmm27", "xmm28", "xmm29", "xmm30", "xmm31", "k1", "k2", "k3", "k4", "k5", "k6", "k7"
#endif
    );
    static const uint64_t expected[14] = {101, 102, 103, 104, 108, 109, 110, 111, 105, 112, 113, 114, 115, 0};
    for (int i = 0; i < 14; i++)
        if (general[i] != expected[i])
            return 1000 + i;
    for (int i = 0; i < COUNT; i++)
        if (memcmp(before.bytes[i], after.bytes[i], WIDE))
            return 2000 + i;
#if WIDE == 64
    for (int i = 1; i < 8; i++)
        if (before.masks[i] != after.masks[i])
            return 3000 + i;
#endif
    uintptr_t thread_pointer;
    __asm__("mov %%fs:0, %0" : "=r"(thread_pointer));
    CHECK((long *)(thread_pointer + distance) == &variable);
    CHECK(variable == 77);
    return 42;
}
