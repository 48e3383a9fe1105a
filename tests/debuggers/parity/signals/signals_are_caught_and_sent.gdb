//# source: signals.c
//# builds: gcc_o0_dwarf4 clang_o0_dwarf5

(gdb) catch signal SIGUSR1
Catchpoint 1 (signal SIGUSR1)
(gdb) break handler
(gdb) run
Catchpoint 1 (signal SIGUSR1),
(gdb) signal 0
[host] entry(5) = 5
(gdb) run
Catchpoint 1 (signal SIGUSR1),
(gdb) queue-signal SIGUSR1
(gdb) continue
Breakpoint 2, handler (number=10) at signals.c:
