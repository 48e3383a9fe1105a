# Code that has an address in it, and a constant behind the code (both in the text segment).
# flags: -Wl,-z,notext
    .data
    .globl object
    .type object, @object
    .size object, 8
object: .quad 40
    .text
    .globl run
    .type run, @function
run:
    movabs $object, %rax
    mov (%rax), %rax
    add constant(%rip), %eax
    ret
    .size run, . - run
    .p2align 3
constant: .quad 2
    .quad run
    .section .note.GNU-stack, "", @progbits
