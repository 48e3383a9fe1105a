/* The first access to a thread-local variable, with values in all vector and predicate registers. */
#include <string.h>

__thread int variable = 42;

/* Fills the registers, reads `variable` if `access` is not 0, and stores the registers to `found`: 32 vectors, then 16
   predicates, each in 256 bytes. Returns the variable, or 42. */
extern int with_registers(unsigned char *found, int access) __attribute__((visibility("hidden")));

__asm__(".arch armv8.2-a+sve\n"
        ".text\n"
        ".type with_registers, %function\n"
        "with_registers:\n"
        "    stp x29, x30, [sp, #-112]!\n"
        "    mov x29, sp\n"
        "    stp d8, d9, [sp, #16]\n"
        "    stp d10, d11, [sp, #32]\n"
        "    stp d12, d13, [sp, #48]\n"
        "    stp d14, d15, [sp, #64]\n"
        "    stp x0, x1, [sp, #80]\n"
        "    mov w9, #42\n"
        "    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
        "    dup z\\n\\().b, #\\n + 1\n"
        "    .endr\n"
        "    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
        "    mov x10, #\\n + 1\n"
        "    whilelo p\\n\\().b, xzr, x10\n"
        "    .endr\n"
        "    cbz w1, 1f\n"
        "    adrp x0, :tlsdesc:variable\n"
        "    ldr x1, [x0, :tlsdesc_lo12:variable]\n"
        "    add x0, x0, :tlsdesc_lo12:variable\n"
        "    .tlsdesccall variable\n"
        "    blr x1\n"
        "    mrs x1, tpidr_el0\n"
        "    ldr w9, [x1, x0]\n"
        "1:\n"
        "    ldr x0, [sp, #80]\n"
        "    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
        "    str z\\n, [x0]\n"
        "    add x0, x0, #256\n"
        "    .endr\n"
        "    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
        "    str p\\n, [x0]\n"
        "    add x0, x0, #256\n"
        "    .endr\n"
        "    mov w0, w9\n"
        "    ldp d8, d9, [sp, #16]\n"
        "    ldp d10, d11, [sp, #32]\n"
        "    ldp d12, d13, [sp, #48]\n"
        "    ldp d14, d15, [sp, #64]\n"
        "    ldp x29, x30, [sp], #112\n"
        "    ret\n");

static unsigned char expected[48 * 256], found[48 * 256];

int run(void) {
    with_registers(expected, 0);
    int value = with_registers(found, 1);
    return memcmp(expected, found, sizeof found) == 0 ? value : -1;
}
