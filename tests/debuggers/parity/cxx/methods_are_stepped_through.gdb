//# source: classes.cc
//# builds: gcc_o0_dwarf5 clang_o0_dwarf4

(gdb) break {feeds}
(gdb) run
(gdb) next
(gdb) step
zoo::Dog::legs (this=
(gdb) info symbol $pc
zoo::Dog::legs() const +
in section .text of
(gdb) bt 2
#0  zoo::Dog::legs (this=0xADDRESS) at {legs}
entry (n=5) at classes.cc:
(gdb) up
(gdb) tbreak {plus}
(gdb) continue
zoo::Dog::operator+ (this=
(gdb) print other.weight + this->weight
= 26
(gdb) print *this
weight = 25
(gdb) tbreak {destructor}
(gdb) continue
zoo::Dog::~Dog (this=
at {destructor}
(gdb) info locals
(gdb) finish
