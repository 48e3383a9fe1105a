//# source: clib.c
//# builds: gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf4 clang_o2_dwarf5

(gdb) break {leaf}
(gdb) run
(gdb) bt
#0  leaf (
#1  0xADDRESS in middle (n=
#2  0xADDRESS in entry (n=
#3  0xADDRESS in debuggers::harness::host::host_calls (function=0xADDRESS <entry>, number=5) at tests/debuggers/harness/host.rs:
debuggers::the_program_that_is_debugged () at tests/debuggers/main.rs:
start_thread
(gdb) up
#1  0xADDRESS in middle (n=
(gdb) up 2
host_calls
(gdb) down
#2  0xADDRESS in entry (n=
(gdb) frame 1
#1  0xADDRESS in middle
(gdb) frame function entry
#2  0xADDRESS in entry
(gdb) info locals
values = {
(gdb) info frame
Stack level 2, frame at 0xADDRESS:
source language c.
(gdb) bt -full 2
local =
sum =
(gdb) bt -2
clone3
(gdb) frame apply 2 -q print $pc
<middle+
(gdb) frame 0
(gdb) print $_caller_is("middle")
= 1
