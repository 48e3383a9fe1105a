//# source: cpplib.cc
//# builds: gcc_o2_dwarf4 gcc_o2_dwarf5
//# forms: full wrapped
//# complaints: fail
//# note: Optimised, gcc marks no beginning of a statement in that function, and gdb asks for one.

(gdb) break shapes::Square<long>::area
(gdb) run
reakpoint\s
, shapes::Square<long>::area (this=
=5) at\s
(gdb) bt
#0  shapes::Square<long>::area (this=
 in entry (n=5) at cpplib.cc:
host_calls (
, number=5) at tests/debuggers/harness/host.rs:
(gdb) info args
scale = 5\n
(gdb) print *this
<shapes::Base> = {_vptr.Base = 0xADDRESS <vtable for shapes::Square<long>+16>}, side = 3
(gdb) ptype this
struct shapes::Square<long> [with T = long] : public shapes::Base
std::vector<int
(gdb) info vtbl this
vtable for 'shapes::Square<long>'
[2]: 0xADDRESS <shapes::Square<long>::area(int)>
(gdb) info symbol $pc
shapes::Square<long>::area(int)
 in section .text
(gdb) up
(gdb) ptype base
virtual int area(int);
(gdb) print *base
(gdb) down
(gdb) finish
Value returned is $
 = 48\n
(gdb) delete
(gdb) continue
exited normally
