// What the assembler itself says of two sections: ranges with a base of their own.
    .text
    .globl places_first
    .type places_first, @function
places_first:
    .cfi_startproc
#ifdef __aarch64__
    add w0, w0, #0
    add w0, w0, #1
#else
    mov %edi, %eax
    add $1, %eax
#endif
    ret
    .cfi_endproc
    .size places_first, . - places_first

    .section .text.second, "ax", @progbits
    .globl places_second
    .type places_second, @function
places_second:
    .cfi_startproc
#ifdef __aarch64__
    add w0, w0, w0
#else
    lea (%rdi,%rdi), %eax
#endif
    nop
    ret
    .cfi_endproc
    .size places_second, . - places_second
    .section .note.GNU-stack, "", @progbits
