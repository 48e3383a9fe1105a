//# source: signals.c
//# builds: gcc_o0_dwarf5

(gdb) handle SIGUSR1 nostop noprint nopass
(gdb) break {entry}
(gdb) run
(gdb) continue
[host] entry(5) = 5
exited normally
