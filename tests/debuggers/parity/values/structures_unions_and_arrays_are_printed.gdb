//# source: records.c
//# builds: gcc_o0_dwarf2 gcc_o0_dwarf3 gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf4 clang_o2_dwarf5 gcc_o0_types

(gdb) break total
(gdb) run
(gdb) print *of
{tag = 97 'a', place = {x = -2, y = 3}, ready = 1, level = 5, value = {whole = 1065353216, real = 1, bytes = "\000\000\200?"}, allowed = (READ | EXECUTE), matrix = {{1, 2, 3}, {4, 5, 6}}, combine = 0xADDRESS <add>, next = 0xADDRESS <last>, name = "first
ratio = 0.5}
(gdb) print -pretty on -- first.place
{
x = -2,
(gdb) print first.matrix[1]
= {4, 5, 6}
(gdb) print/x first.matrix
= {{0x1, 0x2, 0x3}, {0x4, 0x5, 0x6}}
(gdb) print *first.next
tag = 122 'z'
(gdb) print &first.value
(union number *) 0xADDRESS <first+
(gdb) print first.matrix[0][1]@3
= {2, 3, 4}
(gdb) print words
"one"
(gdb) print wide
(>=11) L"wide"
(gdb) print wave
= 1 + 2i
(gdb) print precise
= 1.25
(gdb) print (enum permission) 7
(READ | WRITE | EXECUTE)
(gdb) print WRITE
= WRITE
(gdb) print of->combine == add
= 1
(gdb) print sizeof(struct record)
(gdb) output first.name
"first
(gdb) printf "%s %d %.1f\n", words[1], first.place.y, first.ratio
two 3 0.5
(gdb) x/s first.name
<first+
"first"
