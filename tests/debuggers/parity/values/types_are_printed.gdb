//# source: records.c
//# builds: gcc_o0_dwarf5 gcc_o0_dwarf4 clang_o0_dwarf5 gcc_o0_types

(gdb) break total
(gdb) run
(gdb) ptype struct record
char tag;
struct point place;
unsigned int ready : 1;
operation *combine;
(gdb) ptype /o struct record
/* offset      |    size */
/* total size
(gdb) ptype union number
float real;
(gdb) ptype enum permission
READ = 1
(gdb) whatis of
const struct record *
(gdb) ptype operation
type = int (int, int)
(gdb) whatis first.matrix
type = int [2][3]
(gdb) ptype moved
type = struct point {
(gdb) whatis &first.place
type = struct point *
(gdb) whatis total
(const struct record *, int)
(gdb) info types ^number$
union number;
