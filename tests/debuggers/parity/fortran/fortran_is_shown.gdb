//# source: geometry.f90
//# builds: gfortran_o0_dwarf4 gfortran_o0_dwarf5

(gdb) break geometry::area
(gdb) break {fill}
(gdb) run
geometry::fill (values=..., title=
(gdb) print values
(gdb) print title
= 'ab'
(gdb) print size(values)
(>=11) = 3
(gdb) bt 2
geometry::entry (n=5) at geometry.f90:
(gdb) delete 2
(gdb) continue
geometry::area (corner=
(gdb) print corner
= ( x = 6, y = 1.5 )
(gdb) print corner%x
= 6
(gdb) ptype corner
real(kind=8) :: y
(gdb) print calls
= 3
(gdb) print grid
(>=11) = ((1, 2) (3, 4) (5, 6))
(gdb) print grid(2, 1:2)
(>=11) = (2, 4)
(gdb) info symbol $pc
__geometry_MOD_area
(gdb) finish
Value returned is
= 30
(gdb) info locals
ready = .TRUE.
wave = (1,-2)
(gdb) print heap
= (3, 6, 11)
(gdb) info source
Source language is fortran.
(gdb) set var n = 0
(gdb) continue
exited normally
