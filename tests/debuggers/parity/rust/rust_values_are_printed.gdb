//# source: rusttypes.rs
//# builds: rustc_o0_dwarf4 rustc_o0_dwarf5

(gdb) break {entry}
(gdb) run
(gdb) print some
= core::option::Option<i32>::Some(5)
(gdb) print none
= core::option::Option<alloc::boxed::Box<i32, alloc::alloc::Global>>::None
(gdb) print fine
Ok(200)
(gdb) print word
= "word"
(gdb) print text
alloc::string::String
(gdb) print numbers
= [1, 2, 3]
(gdb) print slice
= &[i32]
(>=11) [2, 3]
(gdb) print mixed
(>=11) = (1, 99 'c', -2.5)
(gdb) print *boxed
= 17
(gdb) print bird
= rusttypes::Bird {size: 4}
(gdb) print level
= rusttypes::Level::High
(gdb) print bits
= rusttypes::Bits {whole: 1065353216, real: 1}
(gdb) print &numbers[1]
(*mut i32) 0xADDRESS
(gdb) ptype bird
size: i32,
(gdb) ptype /o mixed
(gdb) whatis add
entry::{closure_env#0}
(gdb) print rusttypes::COUNTER
7
(gdb) print bird.size * 2 + n
= 13
(gdb) print rusttypes::Bird{size: 3}
= rusttypes::Bird {size: 3}
(gdb) info source
Source language is rust.
