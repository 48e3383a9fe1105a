//# source: rustlib.rs
//# builds: rustc_o0 rustc_o2
//# forms: full wrapped
//# complaints: fail

(gdb) break rustlib::shapes::area
(gdb) tbreak {area}
(gdb) run
Breakpoint 1, rustlib::shapes::area (shape=0xADDRESS, scale=5) at rustlib.rs:
(gdb) bt
#0  rustlib::shapes::area (
 in rustlib::entry (n=5) at rustlib.rs:
host_calls (
, number=5) at tests/debuggers/harness/host.rs:
(gdb) continue
Temporary breakpoint 2, rustlib::shapes::area (shape=
(gdb) info args
shape = 0xADDRESS\nscale = 5\n
(gdb) info locals
factors = alloc::vec::Vec<i32,\s
(gdb) print *shape
rustlib::shapes::Shape::Rectangle{width: 3, height: 4}
(gdb) ptype shape
*mut rustlib::shapes::Shape
(gdb) info symbol $pc
rustlib::shapes::area
 in section .text of <in-memory@0xADDRESS>
(gdb) next
(gdb) up
(gdb) info locals
circle = rustlib::shapes::Shape::Circle(1)\n
(gdb) down
(gdb) finish
Value returned is $
 = 60\n
(gdb) continue
Breakpoint 1, rustlib::shapes::area (
(gdb) delete
(gdb) continue
exited normally
