//# source: threads.c
//# builds: gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf4

(gdb) break knock
(gdb) run
knock (number=
1) at threads.c:
(gdb) info threads
knock (number=
1) at threads.c:
(gdb) thread apply 3 4 bt -2
(gdb) thread apply all -q frame function work
in work (argument=
(gdb) print mine
= 10
(gdb) thread 4
(gdb) frame function work
at {waits}
(gdb) print mine
= 20
(gdb) thread 3
(gdb) continue
knock (number=
2) at threads.c:
(gdb) print mine
= 20
(gdb) continue
[host] entry(5) = 38
