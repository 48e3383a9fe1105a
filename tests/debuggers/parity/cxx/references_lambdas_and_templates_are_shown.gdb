//# source: classes.cc
//# builds: gcc_o0_dwarf5_symbolic clang_o0_dwarf4_symbolic gcc_o0_types_symbolic

(gdb) break {feeds}
(gdb) run
(gdb) print alias
(int &) @0xADDRESS: 2
(gdb) whatis alias
type = int &
(gdb) print temporary
(int &&) @0xADDRESS: 6
(gdb) set var alias = 9
(gdb) print dog.age
= 9
(gdb) print &alias == &dog.age
= true
(gdb) print add
alias
(gdb) print size
= zoo::Size::Large
(gdb) ptype zoo::Size
type = enum class zoo::Size : unsigned char {
zoo::Size::Small
zoo::Size::Large = 7
(gdb) print herd
= {members = {1, 2, 3}}
(gdb) print herd.sum()
= 6
(gdb) whatis herd
type = zoo::Herd<int, 3>
(gdb) ptype herd
T members[3];
(gdb) info functions -n doubled
zoo::doubled<double>(double)
(gdb) info types ^zoo::Herd
zoo::Herd<int, 3>;
(gdb) info line zoo::Herd<int, 3>::sum
classes.cc
(gdb) break {lambda}
(gdb) continue
operator()
(gdb) info args
by = 1
