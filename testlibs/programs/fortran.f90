! Formatted input and output, matrix intrinsics, allocation, and a file: all from libgfortran.
integer(c_int) function run() bind(C)
  use, intrinsic :: iso_c_binding, only: c_int
  implicit none
  character(len=40) :: text
  real(8), allocatable :: a(:,:), b(:,:), c(:,:)
  real(8) :: x, drawn(1000)
  real(16) :: wide
  integer :: i, j, unit, status, n

  run = 1
  write (text, '(A, I5, F8.3)') 'n =', 42, 2.5d0
  if (text /= 'n =   42   2.500') return
  run = 2
  read (text(4:), *) n, x
  if (n /= 42 .or. x /= 2.5d0) return
  run = 3
  allocate (a(60, 40), b(40, 50))
  do i = 1, 40
    do j = 1, 60
      a(j, i) = mod(i * j, 7)
    end do
    do j = 1, 50
      b(i, j) = mod(i + j, 5)
    end do
  end do
  c = matmul(a, b)
  do i = 1, 60
    do j = 1, 50
      if (c(i, j) /= dot_product(a(i, :), b(:, j))) return
    end do
  end do
  run = 4
  call random_seed()
  call random_number(drawn)
  if (minval(drawn) < 0 .or. maxval(drawn) >= 1 .or. maxval(drawn) == minval(drawn)) return
  run = 5
  open (newunit=unit, status='scratch', action='readwrite', form='formatted')
  do i = 1, 100
    write (unit, *) i, sqrt(real(i, 8))
  end do
  rewind (unit)
  do i = 1, 100
    read (unit, *, iostat=status) n, x
    if (status /= 0 .or. n /= i .or. abs(x * x - i) > 1d-9) return
  end do
  read (unit, *, iostat=status) n
  if (.not. is_iostat_end(status)) return
  close (unit)
  run = 6
  ! In quadruple precision, which libquadmath formats.
  wide = sqrt(2.0_16)
  write (text, '(F36.33)') wide
  if (adjustl(text) /= '1.414213562373095048801688724209698') return
  run = 7
  read (text, *) wide
  if (abs(wide * wide - 2.0_16) > 1e-30_16) return
  run = 42
end function
