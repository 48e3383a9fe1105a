//# source: clib.c
//# builds: gcc_o2_dwarf5 clang_o2_dwarf4

(gdb) break {host}
(gdb) run
(gdb) set language c
(gdb) break *leaf
(gdb) set language auto
(gdb) continue
leaf (
(gdb) display/i $pc
(gdb) stepi
1: x/i $pc
=> 0xADDRESS <leaf+
(gdb) nexti 2
<leaf+
(gdb) stepi
<leaf+
(gdb) info display
(gdb) undisplay 1
(gdb) up
middle (
(gdb) x/2i $pc
<middle+
