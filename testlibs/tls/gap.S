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
