//# source: clib.c
//# builds: gcc_o0_dwarf5

(gdb) break leaf
(gdb) run
(gdb) info sources -basename clib
(wrapped>=13) .gnu_debugdata for <in-memory@0xADDRESS>:
clib.c
(wrapped>=13) <in-memory@0xADDRESS>:
