//# source: signals.c
//# builds: gcc_o0_dwarf5 gcc_o2_dwarf5 clang_o0_dwarf4

(host) load a {LIBRARY}
(host) call a crash 1
(gdb) run
received signal SIGSEGV, Segmentation fault.
crashes (where=
at {crashes}
(gdb) bt 2
crashes (where=
in crash (n=
(gdb) print where
(gdb) print $_siginfo._sifields._sigfault.si_addr
0x0
(gdb) x/i $pc
<crashes
(gdb) continue
(gdb) continue
Program terminated with signal SIGSEGV, Segmentation fault.
