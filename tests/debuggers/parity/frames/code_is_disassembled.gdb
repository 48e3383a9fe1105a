//# source: clib.c
//# builds: gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf4 clang_o2_dwarf5

(gdb) break leaf
(gdb) run
(gdb) disassemble
Dump of assembler code for function leaf:
=> 0xADDRESS <+
ret
(gdb) disassemble /s leaf
clib.c:
// MARK leaf
(gdb) disassemble /r middle,+8
<middle+0>:
(gdb) x/3i leaf
<leaf>:
(gdb) x/2xb middle
<middle>:
(gdb) x/dw &lib_global
<lib_global>:	7
(gdb) print *(int *)&lib_global
= 7
(gdb) info registers rip
<leaf
