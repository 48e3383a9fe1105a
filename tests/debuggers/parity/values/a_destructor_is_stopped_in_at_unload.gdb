//# source: records.c
//# builds: gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf5

(host) load a {LIBRARY}
(host) call a entry 5
(host) unload a
(gdb) break {destructor}
(gdb) run
[host] entry(5) =
Breakpoint 1, gone () at {destructor}
(gdb) print first.level
= 5
(gdb) bt 1
#0  gone () at {destructor}
(gdb) continue
[host] unloaded a
exited normally
