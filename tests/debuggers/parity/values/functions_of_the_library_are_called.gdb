//# source: records.c
//# builds: gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf4

(gdb) break records.c:entry
(gdb) run
(gdb) print moved(first.place, 10)
{x = 8, y = 13}
(gdb) print half(5)
= 2.5
(gdb) print total(&first, 1)
(gdb) call half(3) + 1
= 2.5
(gdb) tbreak half
(gdb) print half(7)
Temporary breakpoint 2, half (n=
The program being debugged stopped while in a function called from GDB.
(gdb) bt 2
#0  half (n=7)
<function called from gdb>
(gdb) finish
Value returned is
3.5
(gdb) print $_exitcode
void
(gdb) continue
exited normally
