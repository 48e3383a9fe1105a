//# source: clib.c
//# builds: gcc_o0_g
//# compare: nothing
//# note: A thread-local has no place before the thread's first use of it: the second call of `leaf`.

(host) acquire a {LIBRARY}
(host) call a entry 5
(host) unload a
(host) pause
(host) acquire b {LIBRARY}
(host) call b entry 5
(gdb) break host_pauses
(gdb) break leaf
(gdb) ignore 2 1
(gdb) run
Breakpoint 2, leaf (a=1, b=2) at clib.c:
(gdb) print lib_global
= 8\n
(gdb) print lib_thread
= 100\n
(gdb) set variable lib_static = 1234
(gdb) set variable lib_thread = 4321
(gdb) set $there = $pc
(gdb) ignore 2 100
(gdb) watch -location lib_global
(gdb) continue
watchpoint 3: -location lib_global
Old value = 8\n
(gdb) delete 3
(gdb) continue
unloaded a
host_pauses ()
(gdb) with language c -- print lib_global
= 7\n
(gdb) with language c -- print lib_static
= 9\n
(gdb) with language c -- print lib_constructed
= 1\n
(gdb) info breakpoints
in leaf at clib.c:
(not) PENDING
(gdb) ignore 2 1
(gdb) continue
acquired b
Breakpoint 2, leaf (a=1, b=2) at clib.c:
(gdb) print $pc == $there
= 1\n
(gdb) print lib_global
= 8\n
(gdb) print lib_thread
= 100\n
(gdb) bt
#0  leaf (
 in middle (
 in entry (
host_calls (
(gdb) watch -location lib_global
(gdb) continue
watchpoint 4: -location lib_global
Old value = 8\n
(gdb) delete
(gdb) continue
done
exited normally
