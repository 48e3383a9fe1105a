"""What the README says: `sh test.sh` runs it."""

import ctypes
import os
import pickle
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import memdl
import psutil
import pytest
from dask.distributed import Client, Event, as_completed

import native
from example import FUNCTIONS, compile_work, start_cluster
from native import Cache, DigestMismatch, NativeLibrary
from tasks import diffuse, diffuse_in_python, diffuse_where

SECONDS = 90  # The limit of each step. The machine may have other work.


@pytest.fixture(scope="session")
def data():
    return compile_work()


@pytest.fixture(scope="module")
def shared_cluster():
    """For tests that leave the workers as they are."""
    with start_cluster() as cluster, Client(cluster) as client:
        yield cluster, client


@pytest.fixture
def client(shared_cluster):
    return shared_cluster[1]


@pytest.fixture
def own_cluster():
    """For tests that kill workers, or add some."""
    with start_cluster() as cluster, Client(cluster) as client:
        yield cluster, client


def work(data):
    return NativeLibrary(data, FUNCTIONS, name="libwork.so")


def workers(client):
    """The processes of the workers, by address."""
    return client.run(os.getpid)


def wait_until(condition):
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def loaded(digest):
    """What a worker has loaded of some bytes: the name of each image, and how often the cache loaded one."""
    entries = [entry for key, entry in native.CACHE._entries.items() if key[0] == digest]
    templates = {entry.template.id for entry in entries}
    return [image.name for image in memdl.images() if image.template in templates], native.CACHE.loads


def fetched(key, dask_worker):
    """How often a worker got a value from another one."""
    return sum(key in transfer["keys"] for transfer in dask_worker.transfer_incoming_log)


# The cluster.


def test_many_tasks_load_it_once_in_each_worker(own_cluster, data):
    cluster, client = own_cluster
    library = work(data).submit(client)
    futures = client.map(diffuse, range(300), library=library)
    assert client.gather(futures) == [diffuse_in_python(number) for number in range(300)]
    # The bytes are not in the tasks. One worker made the value, the other one fetched it.
    assert len(pickle.dumps(cluster.scheduler.tasks[futures[0].key].run_spec)) < len(data) / 4
    assert sorted(client.run(fetched, library.key).values()) == [0, 1]
    assert list(client.run(loaded, work(data).digest).values()) == [(["libwork.so"], 1)] * 2
    # The same bytes once more, by an object of its own.
    again = work(bytes(bytearray(data))).submit(client)
    assert client.submit(diffuse, 7, again).result(SECONDS) == diffuse_in_python(7)
    assert list(client.run(loaded, work(data).digest).values()) == [(["libwork.so"], 1)] * 2


def test_a_worker_that_is_killed_is_replaced(own_cluster, data):
    _, client = own_cluster
    before = set(workers(client).values())
    library = work(data).submit(client)
    futures = client.map(diffuse_where, range(200), library=library, steps=50_000)
    ran = {future.key: future.result()[0] for future in _first(20, futures)}
    victim = next(iter(ran.values()))
    assert not all(future.done() for future in futures)
    os.kill(victim, signal.SIGKILL)
    results = client.gather(futures)
    # So many steps would take Python minutes. The library is in this process, too.
    assert [total for _, total in results] == [sum(diffuse(number, work(data), 50_000)) for number in range(200)]
    wait_until(lambda: len(set(workers(client).values()) - before) == 1)
    address, process = next(it for it in workers(client).items() if it[1] not in before)
    task = client.submit(diffuse_where, 7, library, steps=50_000, workers=[address], pure=False)
    assert task.result(SECONDS) == (process, results[7][1])


def test_workers_that_are_killed_all_at_once_get_it_again(own_cluster, data):
    _, client = own_cluster
    before = workers(client)
    library = work(data).submit(client)
    assert client.submit(diffuse, 1, library).result(SECONDS) == diffuse_in_python(1)
    for process in before.values():
        os.kill(process, signal.SIGKILL)
    tasks = client.map(diffuse_where, range(100), library=library)
    results = [task.result(SECONDS) for task in tasks]
    assert [total for _, total in results] == [sum(diffuse_in_python(number)) for number in range(100)]
    assert not {process for process, _ in results} & set(before.values())


def test_a_worker_that_joins_late_gets_it(own_cluster, data):
    cluster, client = own_cluster
    library = work(data).submit(client)
    client.gather(client.map(diffuse, range(10), library=library))
    before = workers(client)
    cluster.scale(3)
    client.wait_for_workers(3, timeout=SECONDS)
    (late,) = set(workers(client)) - set(before)
    futures = client.map(diffuse, range(100, 150), library=library, workers=[late])
    assert [it.result(SECONDS) for it in futures] == [diffuse_in_python(number) for number in range(100, 150)]
    assert client.run(loaded, work(data).digest, workers=[late]) == {late: (["libwork.so"], 1)}
    assert client.run(fetched, library.key, workers=[late]) == {late: 1}


def test_workers_have_no_file_of_it(client, data):
    client.gather(client.map(diffuse, range(50), library=work(data).submit(client)))
    for process, ranges, folder in client.run(_where_it_is).values():
        lines = [line.split(maxsplit=5) for line in Path(f"/proc/{process}/maps").read_text().splitlines()]
        in_images = [it for it in lines if any(_overlaps(it[0], *image) for image in ranges)]
        assert ranges and in_images, lines
        # The fifth column is the file's inode.
        assert {it[4] for it in in_images} == {"0"}, in_images
        files = [it[5] for it in lines if len(it) == 6 and it[4] != "0"]
        files += [os.readlink(it) for it in _descriptors(process)]
        assert not [it for it in files if "memfd" in it or "libwork" in it], files
        kept = [it for it in Path(folder).rglob("*") if it.is_file() and data in it.read_bytes()]
        assert kept == []


def test_other_bytes_are_refused(client, data):
    library = work(data)
    changed = data.replace(b"diffuse", b"confuse")
    assert changed != data
    with pytest.raises(DigestMismatch, match=f"libwork.so: .* not {library.digest}"):
        pickle.loads(pickle.dumps(library).replace(data, changed))
    bad = client.submit(NativeLibrary, changed, FUNCTIONS, "libwork.so", library.digest)
    with pytest.raises(DigestMismatch, match=library.digest):
        client.submit(diffuse, 1, bad).result(SECONDS)


def test_two_versions_of_a_name_in_one_worker(client, data):
    libraries = [work(data).submit(client), work(compile_work("-DVERSION=2")).submit(client)]
    worker = next(iter(workers(client)))
    assert client.submit(_versions, *libraries, workers=[worker]).result(SECONDS) == (1, 2, 1)
    assert client.submit(_versions, *libraries[::-1], workers=[worker]).result(SECONDS) == (2, 1, 2)
    for library in libraries:
        future = client.submit(diffuse, 5, library, workers=[worker], pure=False)
        assert future.result(SECONDS) == diffuse_in_python(5)


def test_gdb_sees_a_running_task(client, data):
    worker, process = next(iter(workers(client).items()))
    library = work(data).submit(client)
    task = client.submit(_until_gdb_has_seen_it, library, workers=[worker], pure=False)
    wait_until(Event("it runs", client=client).is_set)
    source = (Path(__file__).parent / "work.c").read_text().splitlines()
    line = 1 + next(number for number, text in enumerate(source) if "double change" in text)
    commands = ["continue", "backtrace 3", "info args", "print cells[0]", "delete", "detach"]
    try:
        seen = gdb(process, f"break work.c:{line}", *commands)
    finally:
        Event("gdb has seen it", client=client).set()
    # What stopped, the line of the source, the frames and the arguments.
    assert re.search(r"hit Breakpoint [\d.]+, diffuse \(cells=0x", seen), seen
    assert f"{line}\t{source[line - 1]}" in seen, seen
    frame = next(text for text in seen.splitlines() if text.startswith("#0"))
    assert "count=100, steps=10000) at " in frame and frame.endswith(f"work.c:{line}"), seen
    assert "\ncount = 100\nsteps = 10000\n" in seen and "= 100\n" in seen.split("steps = 10000")[1], seen
    # The task and the worker go on.
    assert task.result(SECONDS) > 0 and workers(client)[worker] == process


def test_nothing_listens_but_on_loopback(client):
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    assert set(workers(client).values()) <= {it.pid for it in processes}
    sockets = [socket for it in processes for socket in it.net_connections("inet")]
    listening = [socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN]
    # The scheduler and each worker listen.
    assert len(listening) >= 3 and set(listening) == {"127.0.0.1"}, sockets


def _first(count, futures):
    done = as_completed(futures, timeout=SECONDS)
    return [next(done) for _ in range(count)]


def _where_it_is(dask_worker):
    return os.getpid(), [(it.start, it.end) for it in memdl.images()], dask_worker.local_directory


def _overlaps(column, start, end):
    first, behind = (int(it, 16) for it in column.split("-"))
    return first < end and start < behind


def _descriptors(process):
    return [it for it in Path(f"/proc/{process}/fd").iterdir() if it.is_symlink()]


def _versions(one, other):
    with one.open() as first, other.open() as second:
        return first.version(), second.version(), first.version()


def _until_gdb_has_seen_it(library):
    runs, buffer = 0, (ctypes.c_double * 100)(100.0)
    Event("it runs").set()
    while not Event("gdb has seen it").is_set():
        with library.open() as work:
            work.diffuse(buffer, 100, 10_000)
        runs += 1
    return runs


def gdb(process, *commands):
    """What gdb prints of a process that it is attached to. It is killed after a minute and a half."""
    command = ["timeout", "-s", "KILL", str(SECONDS), "gdb", "-nx", "-batch", "-ex", "set debuginfod enabled off"]
    command += ["-ex", "set width 0", "-ex", "set confirm off", "-p", str(process)]
    for text in commands:
        command += ["-ex", text]
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


# The library and its cache, in this process.


def test_instances_that_are_fresh_have_data_of_their_own(data):
    library = work(data)
    diffuse(1, library)
    with library.open() as shared, library.open(fresh=True) as own:
        runs = shared.data(ctypes.c_ulong, "runs").value
        assert runs > 0 and own.data(ctypes.c_ulong, "runs").value == 0
        own.diffuse((ctypes.c_double * 3)(), 3, 1)
        assert own.data(ctypes.c_ulong, "runs").value == 1
        assert shared.data(ctypes.c_ulong, "runs").value == runs
        images = len(memdl.images())
    assert len(memdl.images()) == images - 1


def test_the_least_recently_used_go_and_what_is_used_stays():
    versions = [work(compile_work(f"-DVERSION={number}")) for number in (1, 2, 3)]
    cache = Cache(limit=2 * max(len(it.data) for it in versions))
    before = len(memdl.images())

    def use(number):
        with cache.open(versions[number - 1]) as library:
            assert library.version() == number
        return cache.loads

    # The third one pushes the second one out: the first one was used after it.
    assert [use(1), use(2), use(1), use(3), use(1), use(2)] == [1, 2, 2, 3, 3, 4]
    assert len(cache) == len(memdl.images()) - before == 2
    with cache.open(versions[0]) as first, cache.open(versions[1]) as second, cache.open(versions[2]) as third:
        assert len(cache) == 3 and [it.version() for it in (first, second, third)] == [1, 2, 3]
    assert len(cache) == len(memdl.images()) - before == 2


def test_threads_load_it_once(data):
    cache, library, seen = Cache(limit=1 << 20), work(data), []

    def run():
        with cache.open(library) as loaded:
            barrier.wait()
            seen.append(loaded)

    barrier = threading.Barrier(8, timeout=SECONDS)
    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8 and len(set(map(id, seen))) == 1 and cache.loads == 1


def test_functions_that_are_not_there_leave_nothing_loaded(data):
    before = len(memdl.images())
    library = NativeLibrary(data, {"no_such": "void ()"}, name="libwork.so")
    with pytest.raises(memdl.SymbolNotFound, match="libwork.so: no symbol `no_such`"), library.open():
        pass
    assert len(memdl.images()) == before


def test_signatures():
    double = ctypes.POINTER(ctypes.c_double)
    assert native.signature("double (const double *, size_t)") == (ctypes.c_double, [double, ctypes.c_size_t])
    assert native.signature("void *(void)") == (ctypes.c_void_p, [])
    assert native.signature("const char *(int, double **)") == (ctypes.c_char_p, [ctypes.c_int, ctypes.POINTER(double)])
    for wrong in ["double", "double (", "(int)", "int (int) (int)"]:
        with pytest.raises(ValueError, match="signature|type ''"):
            native.signature(wrong)
    with pytest.raises(ValueError, match="'complex' is not known. Use one of void, int"):
        NativeLibrary(b"", {"f": "complex (int)"})
