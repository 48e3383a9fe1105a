//# source: golib.go
//# builds: go_o0

(gdb) set auto-load python-scripts off
(gdb) handle SIGURG nostop noprint
(gdb) break {area}
(gdb) run
main.Area (corner=..., scale=5
at {area}
(gdb) bt 2
main.entry (n=5
at golib.go:
(gdb) print corner
= {X = 6, Y = 7}
(gdb) info locals
product = 30
(gdb) print word
"word"
(gdb) print sides
len = 2, cap = 2
(gdb) print *sides.array@2
= {6, 7}
(gdb) print main.Calls
= 3
(gdb) set var main.Calls = 30
(gdb) next
(gdb) print main.Calls
= 31
(gdb) ptype corner
type = struct main.Point {
(gdb) info symbol $pc
in section .text of
(gdb) info source
golib.go
(gdb) finish
main.entry (
(gdb) kill
