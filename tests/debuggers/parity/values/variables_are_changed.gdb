//# source: records.c
//# builds: gcc_o0_dwarf5 clang_o0_dwarf4

(gdb) break {loop}
(gdb) run
(gdb) set var sum = 1000
(gdb) set var first.matrix[1][1] = 500
(gdb) print first.place = here
(gdb) set var first.level = 2
(gdb) set var first.allowed = WRITE
(gdb) set var first.ratio = 2.25
(gdb) set var first.name[0] = 'F'
(gdb) print calls = 77
= 77
(gdb) print first
level = 2
allowed = WRITE
name = "First
ratio = 2.25
(gdb) break {sum}
(gdb) delete 1
(gdb) continue
(gdb) print sum
= 1501
(gdb) print here.x = 0
= 0
(gdb) set $saved = first
(gdb) print $saved.matrix[1][1]
= 500
(gdb) continue
[host] entry(5) = 1503
