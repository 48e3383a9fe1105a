//# source: golib.go
//# builds: go_o0

(gdb) handle SIGURG nostop noprint
(gdb) break {area}
(gdb) run
(dlopen) runtime-gdb.py" auto-loading has been declined
main.Area (
(memdl) at {area}
(gdb) kill
