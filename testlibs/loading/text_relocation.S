// Code that has an address in it, and a constant behind the code (both in the text segment).
// flags: -Wl,-z,notext
    .data
    .globl object
    .type object, @object
    .size object, 8
object: .quad 40
    .text
    .globl run
    .type run, @function
run:
#ifdef __aarch64__
    ldr x0, address
    ldr x0, [x0]
    ldr x1, constant
    add w0, w0, w1
    ret
#else
    movabs $object, %rax
    mov (%rax), %rax
    add constant(%rip), %eax
    ret
#endif
    .size run, . - run
    .p2align 3
constant: .quad 2
    .quad run
#ifdef __aarch64__
address: .quad object
#endif
    .section .note.GNU-stack, "", @progbits
