"""What the workers run."""

import ctypes
import os


def rod(number, count=100):
    """A rod that is hot at one end. The other end is as cold as its number says."""
    return [100.0] + [float(-number)] * (count - 1)


def diffuse(number, library, steps=100):
    """The temperatures of a rod after some steps."""
    cells = rod(number)
    buffer = (ctypes.c_double * len(cells))(*cells)
    with library.open() as work:
        work.diffuse(buffer, len(cells), steps)
    return list(buffer)


def diffuse_where(number, library, steps=100):
    """The sum of the temperatures, and the process that computed it."""
    return os.getpid(), sum(diffuse(number, library, steps))


def diffuse_in_python(number, steps=100):
    """What `diffuse` must return, to the last bit."""
    cells = rod(number)
    for _ in range(steps):
        inner = zip(cells, cells[1:], cells[2:])
        cells[1:-1] = [here + 0.25 * (left - 2 * here + right) for left, here, right in inner]
    return cells
