//# source: records.c
//# builds: gcc_o0_dwarf5 gcc_o2_dwarf5 clang_o0_dwarf4

(gdb) break moved
(gdb) break half
(gdb) run
moved (from=
(gdb) finish
Value returned is
{x = 3, y = 8}
(gdb) continue
half (n=
(gdb) finish
Value returned is
= 2.5
(gdb) print $$
{x = 3, y = 8}
(gdb) print $_
