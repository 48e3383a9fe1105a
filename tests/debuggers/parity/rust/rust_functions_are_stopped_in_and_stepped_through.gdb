//# source: rusttypes.rs
//# builds: rustc_o0_dwarf4 rustc_o2_dwarf4

(gdb) break rusttypes::Bird::grow
(gdb) break rusttypes::larger<i32>
(gdb) break {volume}
(gdb) run
rusttypes::Bird::grow (self=
by=5) at rusttypes.rs:
(gdb) print *self
= rusttypes::Bird {size: 4}
(gdb) bt 2
rusttypes::entry (n=5) at rusttypes.rs:
(gdb) finish
Value returned is $2 = 9
(gdb) continue
(>=11) {volume}
(gdb) continue
rusttypes::larger<i32> (a=
(gdb) info breakpoints
rusttypes::larger<i32>
(gdb) info symbol $pc
rusttypes::larger
(gdb) info functions -n larger
rusttypes.rs
(gdb) delete
(gdb) continue
exited normally
