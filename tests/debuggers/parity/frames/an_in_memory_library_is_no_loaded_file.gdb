//# source: clib.c
//# builds: gcc_o0_dwarf5

(gdb) break {host}
(gdb) catch load clib-
(gdb) run
(dlopen) Catchpoint 2
(dlopen) Inferior loaded {LIBRARY}
(memdl) [host] loaded a
(gdb) info proc mappings
(dlopen) clib-
(memdl) libc.so.6
