//# source: classes.cc
//# builds: gcc_o0_dwarf5 gcc_o0_dwarf4 clang_o0_dwarf5 gcc_o0_types

(gdb) break {feeds}
(gdb) run
(gdb) print dog
<zoo::Animal> = {_vptr
<vtable for zoo::Dog+24>
age = 2, static count = 3
weight = 25}
(gdb) print *animal
age = 2
(gdb) set print object on
(gdb) print animal
(zoo::Dog *) 0xADDRESS
(gdb) whatis *animal
zoo::Animal
(gdb) print *(zoo::Dog *) animal
weight = 25
(gdb) print dog.name
"rex"
(gdb) info vtbl dog
vtable for 'zoo::Dog'
<zoo::Dog::legs() const>
(gdb) ptype dog
class zoo::Dog : public zoo::Animal, public virtual zoo::Named {
int weight;
zoo::Dog operator+(const zoo::Dog &) const;
(gdb) ptype /o zoo::Animal
/* offset      |    size */
int age;
(gdb) print zoo::Animal::count
= 3
(gdb) print zoo::Dog::size
<zoo::Dog::size() const>
(gdb) print dog.legs()
= 4
(gdb) print (animal->*method)()
= 4
(gdb) print dog.*member
= 2
(gdb) print dog.size()
= zoo::Size::Large
(gdb) print '(anonymous namespace)::hidden'
= 11
