//# source: clib.c
//# builds: gcc_o0_bare gcc_o2_bare clang_o2_bare

(gdb) set language c
(gdb) break leaf
(gdb) run
Breakpoint 1, 0xADDRESS in leaf ()
(gdb) bt 4
#0  0xADDRESS in leaf ()
in middle ()
in entry ()
host_calls
(gdb) info symbol $pc
leaf
(gdb) x/2i $pc
<leaf
(gdb) print (int) lib_global
= 7
(gdb) print ((int (*)(int, int *)) middle)(0, 0)
= 0
(gdb) delete
(gdb) finish
in middle ()
(gdb) up
(gdb) info line leaf
No line number information available for address 0xADDRESS <leaf>
(gdb) continue
exited normally
