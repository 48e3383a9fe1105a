//# source: clib.c
//# builds: gcc_o0_dwarf5

(gdb) interpreter-exec mi "-break-insert -f leaf"
pending="leaf"
(gdb) run
(gdb) interpreter-exec mi "-stack-list-frames 0 2"
frame={level="0",addr="0xADDRESS",func="leaf",file=
(gdb) interpreter-exec mi "-stack-list-variables --simple-values"
{name="a",arg="1",type="int",value="0"}
(gdb) interpreter-exec mi "-var-create pair * both"
name="pair",numchild="3"
(gdb) interpreter-exec mi "-var-list-children pair"
exp="ratio"
(gdb) interpreter-exec mi "-data-evaluate-expression lib_global"
value="7"
(gdb) interpreter-exec mi "-symbol-info-functions --name ^leaf$"
name="leaf",type="int (int, int)"
(gdb) interpreter-exec mi "-break-list"
func="leaf"
