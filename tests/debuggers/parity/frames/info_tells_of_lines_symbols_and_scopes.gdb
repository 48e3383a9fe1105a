//# source: clib.c
//# builds: gcc_o0_dwarf2 gcc_o2_dwarf3 gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf4 clang_o2_dwarf5

(gdb) break leaf
(gdb) run
(gdb) info scope leaf
Symbol a is
Symbol local is
(gdb) info scope {middle}
Symbol sum is
(gdb) info line leaf
of "clib.c" starts at address 0xADDRESS <leaf
(gdb) info line {entry}
<entry+
(gdb) info symbol leaf
leaf in section .text of
(gdb) info symbol $pc
in section .text of
(gdb) info symbol &lib_global
lib_global in section .data of
(gdb) info address leaf
Symbol "leaf" is a function at address 0xADDRESS.
(gdb) info address lib_global
Symbol "lib_global" is static storage at address 0xADDRESS.
(gdb) info source
Current source file is clib.c
Contains
Source language is c.
(gdb) info functions ^leaf$\|^compare$
All functions matching regular expression
File clib.c:
int leaf(int, int);
static int compare(const void *, const void *);
(gdb) info variables ^lib_
File clib.c:
int lib_constructed;
int lib_global;
static int lib_static;
(gdb) info types ^color$\|^pair$
File clib.c:
enum color;
struct pair;
(gdb) info functions -n ^leaf$
int leaf(int, int);
