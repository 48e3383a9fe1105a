//# source: clib.c
//# builds: gcc_o0_dwarf5

(gdb) break {host}
(gdb) run
(gdb) rbreak ^lib_constructor$
Breakpoint 2 at 0xADDRESS: file clib.c
static void lib_constructor(void);
