//# source: containers.cc
//# builds: gcc_o0_dwarf5 gcc_o0_dwarf4 clang_o0_dwarf5 gcc_o0_types

(gdb) break {entry}
(gdb) run
(gdb) print text
= "text"
(gdb) print numbers
= std::vector of length 3, capacity 3 = {1, 2, 5}
(gdb) print flags
= std::vector<bool> of length 3, capacity 64 = {true, false, true}
(gdb) print items
= std::vector of length 2, capacity 2 = {{id = 1, label = "first"}, {id = 2, label = "second"}}
(gdb) print line
list = {[0] = 0.5, [1] = 1.5}
(gdb) print queue
= std::deque with 2 elements = {97 'a', 98 'b'}
(gdb) print pair
7, 8
(gdb) print ages
= std::map with 2 elements = {["ann"] = 30, ["bob"] = 40}
(gdb) print bag
= std::multiset with 3 elements = {[0] = 3, [1] = 3, [2] = 4}
(gdb) print names
= std::unordered_map with 1 element = {[9] = "nine"}
(gdb) print owner
= std::unique_ptr<Item> = {get() = 0xADDRESS}
(gdb) print *owner
label = "owned"
(gdb) print shared
std::shared_ptr<int> (use count 1, weak count 1) = {get() = 0xADDRESS}
(gdb) print some
[contained value] = 5}
(gdb) print none
[no contained value]
(gdb) print either
[index 1] = {"either"}
(gdb) print three
= std::tuple containing = {[1] = 1, [2] = 99 'c', [3] = "three"}
(gdb) print bits
= std::bitset = {[0] = 1, [2] = 1, [4] = 1}
(gdb) print second
= 2
(gdb) print numbers[2] + numbers.size()
= 8
(gdb) whatis ages
std::map<
(gdb) print /r numbers
_M_start = 0xADDRESS
(gdb) info pretty-printer global libstdc
