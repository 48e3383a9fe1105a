! What a debugger is shown of Fortran: a module with a variable, a derived type, arrays, a function
! and a subroutine. The marks are where tests set breakpoints.
module geometry
  use iso_c_binding
  implicit none

  type :: point
    integer :: x
    real(8) :: y
  end type point

  integer :: calls = 3
  integer, dimension(2, 3) :: grid = reshape([1, 2, 3, 4, 5, 6], [2, 3])

contains

  function area(corner, scale) result(product)
    type(point), intent(in) :: corner
    integer, intent(in) :: scale
    integer :: product
    product = corner%x * scale ! MARK area
    calls = calls + 1
  end function area

  subroutine fill(values, title)
    integer, intent(inout) :: values(:)
    character(len=*), intent(in) :: title
    integer :: i
    do i = 1, size(values)
      values(i) = i * i + len(title) ! MARK fill
    end do
  end subroutine fill

  function entry(n) bind(c, name='entry') result(total)
    integer(c_int), value :: n
    integer(c_int) :: total
    integer, allocatable :: heap(:)
    logical :: ready
    complex :: wave
    type(point) :: corner
    corner = point(6, 1.5d0)
    ready = .true.
    wave = (1.0, -2.0)
    allocate (heap(3), source=0)
    call fill(heap, 'ab')
    total = area(corner, n) + sum(heap) ! MARK entry
    deallocate (heap)
  end function entry

end module geometry
