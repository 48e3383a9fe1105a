//# source: signals.c
//# builds: gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf4

(gdb) handle SIGUSR1 stop print pass
(gdb) break handler
(gdb) run
received signal SIGUSR1, User defined signal 1.
(gdb) bt 4
raise
in raises (number=
at signals.c:
(gdb) info signals SIGUSR1
SIGUSR1       Yes	Yes	Yes
(gdb) print $_siginfo.si_signo
= 10
(gdb) continue
handler (number=
10) at signals.c:
(gdb) bt 3
#1  <signal handler called>
(gdb) info frame
called by frame at 0xADDRESS
(gdb) finish
<signal handler called>
(gdb) print handled
= 10
(gdb) continue
[host] entry(5) = 15
