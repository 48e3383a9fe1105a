//# source: records.c
//# builds: gcc_o0_g3

(gdb) break total
(gdb) run
(gdb) info macro SCALED
#define SCALED(x) ((x) * LIMIT)
(gdb) macro expand SCALED(by) + 1
expands to: ((by) * 40) + 1
(gdb) print SCALED(by)
= 200
(gdb) info macros {sum}
#define LIMIT 40
