! What a debugger is shown of Fortran's thread-local variables: those in a common block, of which each
! is a part of one variable, and one in a module.
module counters
  implicit none
  integer :: seen = 4
  !$omp threadprivate(seen)
end module counters

function entry(n) bind(c, name='entry') result(total)
  use iso_c_binding
  use counters
  implicit none
  integer(c_int), value :: n
  integer(c_int) :: total
  integer :: first, second
  common /pair/ first, second
  !$omp threadprivate(/pair/)
  first = n
  second = n * 10
  seen = seen + 1 ! MARK common
  total = first + second + seen
end function entry
