//# source: threads.c
//# builds: gcc_o0_dwarf5

(gdb) tbreak {starts}
(gdb) run
(gdb) break knock thread 4
(gdb) info breakpoints
stop only in thread 4
(gdb) continue
knock (number=2) at threads.c:
(gdb) print $_thread
= 4
(gdb) set scheduler-locking on
(gdb) next
(gdb) print visits
= 33
(gdb) set scheduler-locking off
(gdb) delete
(gdb) continue
exited normally
