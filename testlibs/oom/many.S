# Many of what an image can have many of: 4,000 functions, each exported and called through a table.
    .altmacro
    .macro one number
    .globl function_\number
    .type function_\number, @function
function_\number:
    ret
    .size function_\number, . - function_\number
    .pushsection .data.rel, "aw", @progbits
    .quad function_\number
    .quad function_\number + 0
    .popsection
    .endm
    .macro hundred start
    .set counter, 0
    .rept 100
    one %(\start * 100 + counter)
    .set counter, counter + 1
    .endr
    .endm
    .text
    .set block, 0
    .rept 40
    hundred %block
    .set block, block + 1
    .endr
    .globl run
    .type run, @function
run:
    movl $42, %eax
    ret
    .size run, . - run
    .section .note.GNU-stack, "", @progbits
