// Old compilers call __tls_get_addr with the stack off by eight; `run` is for a thread that has
// not run it.
#include "check.h"
__thread long variable = 77;
__thread double more[100];
int run(void) {
    long *address;
    __asm__ volatile(
        "lea -256(%%rsp), %%rsp\n mov %%rsp, %%rbx\n and $-16, %%rsp\n sub $8, %%rsp\n"
        "data16 lea variable@tlsgd(%%rip), %%rdi\n .value 0x6666\n rex64\n call __tls_get_addr@PLT\n"
        "lea 256(%%rbx), %%rsp\n"
        : "=a"(address) : : "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc",
          "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
          "xmm12", "xmm13", "xmm14", "xmm15");
    CHECK(address == &variable && *address == 77 && more[99] == 0);
    return 42;
}
