// What the assembler itself says of two sections: ranges with a base of their own.
    .text
    .globl places_first
    .type places_first, @function
places_first:
    .cfi_startproc
    mov %edi, %eax
    add $1, %eax
    ret
    .cfi_endproc
    .size places_first, . - places_first

    .section .text.second, "ax", @progbits
    .globl places_second
    .type places_second, @function
places_second:
    .cfi_startproc
    lea (%rdi,%rdi), %eax
    nop
    ret
    .cfi_endproc
    .size places_second, . - places_second
    .section .note.GNU-stack, "", @progbits
