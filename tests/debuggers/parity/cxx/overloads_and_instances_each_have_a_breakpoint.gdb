//# source: classes.cc
//# builds: gcc_o0_dwarf5_symbolic clang_o0_dwarf4_symbolic

(gdb) break zoo::feed
(gdb) break zoo::doubled
(gdb) break zoo::feed(char const*)
(gdb) break zoo::Dog::Dog(int)
(gdb) run
zoo::Dog::Dog (
(gdb) info breakpoints
<MULTIPLE>
in zoo::feed(int) at classes.cc:
in zoo::feed(char const*) at classes.cc:
in zoo::feed(zoo::Dog&, int) at classes.cc:
(>=11) in zoo::doubled<
in zoo::feed(char const*) at classes.cc:
(gdb) disable 4
(gdb) continue
zoo::feed (amount=5
(gdb) disable 1.1-3
(gdb) continue
zoo::feed (what=
(gdb) info source
Source language is c++.
(gdb) continue
(>=11) zoo::doubled<
