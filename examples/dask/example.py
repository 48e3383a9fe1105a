"""Runs the C of work.c in the workers of a Dask cluster: `python example.py [libwork.so]`.

Without a library it compiles work.c.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from dask.distributed import Client, LocalCluster

import tasks
from native import NativeLibrary

FUNCTIONS = {"diffuse": "void (double *, size_t, size_t)", "version": "int (void)"}
HERE = Path(__file__).resolve().parent


def compile_work(*flags):
    """The bytes of work.c, compiled. The file is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "libwork.so"
        command = ["cc", "-g", "-O1", "-shared", "-fPIC", *flags, "-o", str(output), str(HERE / "work.c")]
        subprocess.run(command, check=True)
        return output.read_bytes()


def start_cluster(workers=2):
    """A cluster of processes on this machine, which listens on the loopback interface only."""
    return LocalCluster(n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address=None)


def main():
    data = Path(sys.argv[1]).read_bytes() if len(sys.argv) > 1 else compile_work()
    with start_cluster() as cluster, Client(cluster) as client:
        library = NativeLibrary(data, FUNCTIONS, name="libwork.so").submit(client)
        results = client.gather(client.map(tasks.diffuse_where, range(1000), library=library))
    processes = {process for process, _ in results}
    print(f"{len(results)} rods in {len(processes)} workers, sum {sum(total for _, total in results):.6f}")


if __name__ == "__main__":
    main()
