//# source: clib.c
//# builds: gcc_o2_dwarf5 clang_o2_dwarf4

(gdb) break {host}
(gdb) run
(gdb) set language c
(gdb) break *leaf
Breakpoint 2 at 0xADDRESS: file clib.c
(gdb) break *middle+4
Breakpoint 3 at 0xADDRESS: file clib.c
(gdb) continue
Breakpoint 3, 0xADDRESS in middle (
(gdb) x/i $pc
=> 0xADDRESS <middle+4>:
(gdb) continue
Breakpoint 2, leaf (a=
(gdb) x/i $pc
=> 0xADDRESS <leaf>:
(gdb) print $pc == leaf
= 1
