//# source: clib.c
//# builds: gcc_o0_dwarf5

(gdb) break leaf
(gdb) run
(gdb) info sharedlibrary
(not) in-memory
libc.so.6
(dlopen) clib-
(gdb) python print(gdb.solib_name(gdb.selected_frame().pc()))
(dlopen) clib-
(memdl) None
