# Relocation types that compilers do not emit into shared libraries but GNU ld passes on, each with
# the value that it must get. `run` compares in code that needs none of them.
    .data
    .globl object
    .type object, @object
    .size object, 24
object: .quad 1, 2, 3
    .section .data.other, "aw"
r64:    .quad object + 8
rpc64:  .quad environ - .
rpc32:  .long object + 16 - .
rsize32: .long object@SIZE + 1
rsize64: .quad object@SIZE - 1
    .text
    .globl run
    .type run, @function
run:
    mov object@GOTPCREL(%rip), %rdx
    mov $1, %eax
    lea 8(%rdx), %rcx
    cmp r64(%rip), %rcx
    jne 1f
    mov $2, %eax
    lea rpc64(%rip), %rcx
    add rpc64(%rip), %rcx
    cmp environ@GOTPCREL(%rip), %rcx
    jne 1f
    mov $3, %eax
    movslq rpc32(%rip), %rcx
    lea rpc32(%rip), %rsi
    add %rsi, %rcx
    lea 16(%rdx), %rsi
    cmp %rsi, %rcx
    jne 1f
    mov $4, %eax
    cmpl $25, rsize32(%rip)
    jne 1f
    mov $5, %eax
    cmpq $23, rsize64(%rip)
    jne 1f
    mov $42, %eax
1:  ret
    .size run, . - run
    .section .note.GNU-stack, "", @progbits
