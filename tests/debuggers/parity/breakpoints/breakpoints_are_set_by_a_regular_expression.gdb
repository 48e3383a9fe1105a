//# source: clib.c
//# builds: gcc_o0_dwarf4 clang_o0_dwarf5

(gdb) break {host}
(gdb) run
host_calls
(gdb) rbreak clib.c:^leaf$\|^middle$\|^compare$
file clib.c
int leaf(int, int);
int middle(int, int *);
static int compare(const void *, const void *);
(gdb) info breakpoints
in leaf at clib.c:
in middle at clib.c:
in compare at clib.c:
(gdb) continue
compare (a=0xADDRESS, b=0xADDRESS) at clib.c:
