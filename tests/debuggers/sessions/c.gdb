//# source: clib.c
//# builds: gcc_o0_dwarf4 gcc_o0_dwarf5 gcc_o2_dwarf4 gcc_o2_dwarf5 clang_o0_dwarf4 clang_o0_dwarf5 clang_o2_dwarf4 clang_o2_dwarf5
//# forms: full wrapped
//# complaints: fail
//# note: By clang's optimised code, `compare` and `leaf` are at their lines or at those of their bodies.

(gdb) break lib_constructor
(gdb) break {compare}
(gdb) break leaf
(gdb) info breakpoints
<PENDING>  lib_constructor
<PENDING>  {compare}
<PENDING>  leaf
(gdb) run
Breakpoint 1, lib_constructor () at clib.c:
(gdb) print lib_constructed
(gdb) info symbol $pc
(gdb) continue
Breakpoint 2, compare (
 at {compare}\n
(gdb) info breakpoints
in lib_constructor at clib.c:
in compare at
in leaf at clib.c:
(not) PENDING
(gdb) bt
#0  compare (
qsort
 in entry (n=5
 at clib.c:
host_calls (
, number=5) at tests/debuggers/harness/host.rs:
the_program_that_is_debugged
(gdb) info args
a = 0xADDRESS\nb = 0xADDRESS\n
(gdb) info locals
left =\s
right =\s
(gdb) delete 2
(gdb) continue
Breakpoint 3, leaf (a=
b=1) at clib.c:
(gdb) bt
#0  leaf (a=
b=1) at clib.c:
 in middle (n=
5, values=
0xADDRESS) at clib.c:
in entry (n=5
host_calls (
(gdb) info args
a = 0\nb = 1\n
(gdb) next
(gdb) next
(gdb) next
(gdb) info locals
(build=o2) local =\s
(build=o0) local = 1\n
(gdb) up
in middle (n=
(gdb) info locals
(build=o2) sum =\s
(build=o0) sum = 0\n
(gdb) down
(gdb) print both
(gdb) print shade
(gdb) print lib_global
$
(gdb) print &lib_global
(int *) 0xADDRESS <lib_global>
(gdb) ptype both
(gdb) ptype enum color
type = enum color {
RED
GREEN = 5
BLUE
(gdb) ptype leaf
type = int (int, int)
(gdb) list leaf
int leaf(int a, int b) {
int local = a * 3 + b;
(gdb) info source
Located in\s
Compiled with DWARF
(gdb) info line leaf
(gdb) info symbol leaf
leaf in section .text of <in-memory@0xADDRESS>
(gdb) info symbol &lib_global
lib_global in section .data of
(gdb) info scope leaf
(gdb) info functions ^leaf$
File clib.c:
int leaf(int, int);
(gdb) info variables ^lib_
(gdb) info types ^color$
(gdb) disassemble /s leaf
Dump of assembler code for function leaf:\nclib.c:\n
int leaf(int a, int b) {
<+0>:
// MARK leaf
ret
(gdb) x/3i $pc
=> 0xADDRESS <leaf+
(gdb) delete 3
(gdb) watch lib_global
watchpoint 4: lib_global
(gdb) continue
watchpoint 4: lib_global
Old value =\s
New value =\s
(gdb) continue
(gdb) bt
(gdb) delete 4
(gdb) finish
Value returned is $
(gdb) step
(gdb) step
(gdb) tbreak leaf
(gdb) continue
Temporary breakpoint 5, leaf (a=
(gdb) finish
Value returned is $
(gdb) delete
(gdb) continue
exited normally
