// A thread-local segment whose address is no multiple of its alignment, and whose zeroes begin at
// an odd distance behind its initial values: what linkers do not make of compiled code.
    .section .tdata, "awT", @progbits
    .byte 0x11, 0x22, 0x33
value:
    .section .tbss, "awT", @nobits
    .balign 32
zero:
    .zero 32
    .zero 5
    .text
    .globl run
    .type run, @function
run:
#ifdef __aarch64__
    stp x29, x30, [sp, #-32]!
    str x19, [sp, #16]
    adrp x0, :tlsgd:first
    add x0, x0, :tlsgd_lo12:first
    bl __tls_get_addr
    nop
    mov x19, x0
    adrp x0, :tlsgd:last
    add x0, x0, :tlsgd_lo12:last
    bl __tls_get_addr
    nop
    mov w1, #1
    ldrb w2, [x19]
    cmp w2, #0x11
    b.ne 1f
    mov w1, #2
    ldrb w2, [x19, #2]
    cmp w2, #0x33
    b.ne 1f
    mov w1, #3
    ldrb w2, [x0]
    cbnz w2, 1f
    mov w1, #4
    tst x0, #31
    b.ne 1f
    mov w1, #5
    ldrb w2, [x0, #36]
    cbnz w2, 1f
    mov w2, #9
    strb w2, [x0, #36]
    mov w1, #42
1:  mov w0, w1
    ldr x19, [sp, #16]
    ldp x29, x30, [sp], #32
    ret
#else
    push %rbx
    data16 lea first@tlsgd(%rip), %rdi
    .value 0x6666
    rex64
    call __tls_get_addr@PLT
    mov %rax, %rbx
    data16 lea last@tlsgd(%rip), %rdi
    .value 0x6666
    rex64
    call __tls_get_addr@PLT
    mov $1, %ecx
    cmpb $0x11, (%rbx)
    jne 1f
    mov $2, %ecx
    cmpb $0x33, 2(%rbx)
    jne 1f
    mov $3, %ecx
    cmpb $0, (%rax)
    jne 1f
    mov $4, %ecx
    test $31, %al
    jne 1f
    mov $5, %ecx
    cmpb $0, 36(%rax)
    jne 1f
    movb $9, 36(%rax)
    mov $42, %ecx
1:  mov %ecx, %eax
    pop %rbx
    ret
#endif
    .size run, . - run
    .section .tdata
    .globl first
    .hidden first
    .set first, value - 3
    .type first, @tls_object
    .section .tbss
    .globl last
    .hidden last
    .set last, zero
    .type last, @tls_object
    .section .note.GNU-stack, "", @progbits
