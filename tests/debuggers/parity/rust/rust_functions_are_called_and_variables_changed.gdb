//# source: rusttypes.rs
//# builds: rustc_o0_dwarf4

(gdb) break {entry}
(gdb) run
(gdb) print rusttypes::larger::<i32>(3, 4)
(gdb) set var bird.size = 40
(gdb) print bird
= rusttypes::Bird {size: 40}
(gdb) set var numbers[0] = 100
(gdb) print numbers
= [100, 2, 3]
(gdb) next
(gdb) next
(gdb) print grown
= 45
