"""What native code costs per task, loaded in several ways: `python bench.py [ROUNDS]`. Prints a table of medians."""

import _ctypes
import ctypes
import functools
import os
import statistics
import sys
import tempfile
import time

from dask.distributed import Client

from example import FUNCTIONS, compile_work, start_cluster
from native import NativeLibrary, signature

TASKS, CELLS = 200, 100


def call(library):
    library.diffuse((ctypes.c_double * CELLS)(100.0), CELLS, 1)


def from_memory(number, library):
    with library.open() as work:
        call(work)


def fresh_from_memory(number, library):
    with library.open(fresh=True) as work:
        call(work)


def open_file(library):
    """Writes the library to a file and opens it. The file is gone then."""
    with tempfile.NamedTemporaryFile(suffix=".so") as file:
        file.write(library.data)
        file.flush()
        work = ctypes.CDLL(file.name)
    work.diffuse.restype, work.diffuse.argtypes = signature(library.functions["diffuse"])
    return work


@functools.lru_cache(maxsize=None)
def opened_file(library):
    return open_file(library)


def file_per_worker(number, library):
    call(opened_file(library))


def file_per_task(number, library):
    work = open_file(library)
    call(work)
    _ctypes.dlclose(work._handle)


def nothing(number, library):
    pass


WAYS = {
    "none: it returns at once": nothing,
    "memdl, one instance in each worker": from_memory,
    "memdl, an instance for each task": fresh_from_memory,
    "file and `CDLL`, once in each worker": file_per_worker,
    "file and `CDLL`, for each task": file_per_task,
}


def timed(number, library, way):
    """How long a task takes in the worker."""
    start = time.perf_counter()
    WAYS[way](number, library)
    return time.perf_counter() - start


def main(rounds):
    tasks, walls = ({way: [] for way in WAYS} for _ in range(2))
    library = NativeLibrary(compile_work(), FUNCTIONS, name="libwork.so")
    with start_cluster() as cluster, Client(cluster) as client:
        future = library.submit(client)
        for way in WAYS:
            # The first task of each worker loads the library, and is not measured.
            for worker in client.run(os.getpid):
                client.submit(timed, 0, future, way, workers=[worker], pure=False).result()
        for _ in range(rounds):
            for way in WAYS:
                start = time.perf_counter()
                results = client.gather(client.map(timed, range(TASKS), library=future, way=way, pure=False))
                walls[way].append((time.perf_counter() - start) / TASKS)
                tasks[way] += results
    print(f"{rounds} rounds of {TASKS} tasks each, library of {len(library.data)} bytes")
    print("| a task's library | in the worker | seen by the client |\n|---|---:|---:|")
    for way in WAYS:
        columns = [statistics.median(it[way]) * 1e6 for it in (tasks, walls)]
        print(f"| {way} | " + " | ".join(f"{it:,.1f} µs" for it in columns) + " |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
