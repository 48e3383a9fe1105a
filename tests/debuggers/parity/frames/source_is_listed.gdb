//# source: clib.c
//# builds: gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf4

(gdb) break leaf
(gdb) run
(gdb) list
lib_global += local; // MARK leaf
(gdb) list middle
sum += leaf(i, values[i]); // MARK middle
(gdb) list clib.c:1,3
// What a debugger is shown in C
(gdb) list leaf,middle
// MARK leaf
int middle(int n, int *values) {
(gdb) info line
(gdb) python print(gdb.decode_line('leaf')[1][0].symtab)
clib.c
(gdb) python print(gdb.selected_frame().find_sal().line == gdb.lookup_global_symbol('leaf').line + 1)
True
(gdb) python print(gdb.lookup_symbol('lib_static')[0].type)
int
(gdb) complete break middl
break middle
