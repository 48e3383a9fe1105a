"""Native code as a value of Dask: a library that travels as bytes, and runs in the workers from memory.

Client and workers import this file, and the package `memdl`.
"""

import contextlib
import ctypes
import hashlib
import logging
import re
import threading
from collections import OrderedDict

import dask
import memdl
from dask.utils import parse_bytes

log = logging.getLogger("distributed.native")

TYPES = {
    "void": None,
    "int": ctypes.c_int,
    "unsigned": ctypes.c_uint,
    "int32_t": ctypes.c_int32,
    "int64_t": ctypes.c_int64,
    "uint8_t": ctypes.c_uint8,
    "uint64_t": ctypes.c_uint64,
    "size_t": ctypes.c_size_t,
    "float": ctypes.c_float,
    "double": ctypes.c_double,
}


class DigestMismatch(ValueError):
    """Bytes are others than those that were meant."""


class NativeLibrary:
    """The bytes of a shared library, their SHA-256, and the types of its functions.

    Types are text, `{"add": "int (int, int)"}`, since pointer types of ctypes cannot be pickled.
    """

    def __init__(self, data, functions, name="library.so", digest=None):
        found = hashlib.sha256(data).hexdigest()
        if digest not in (None, found):
            raise DigestMismatch(
                f"{name}: the bytes have the SHA-256 {found}, not {digest}. They were changed on their way, or "
                "belong to another version. Read the library again, and submit it again."
            )
        self.data, self.functions, self.name, self.digest = bytes(data), dict(functions), name, found
        self._types = {function: signature(text) for function, text in self.functions.items()}
        self.key = found, name, tuple(sorted(self.functions.items()))
        """What it is found by on a worker. The same bytes with other types are another library."""

    def submit(self, client):
        """Gives the library to the cluster, and returns a future of it to pass to tasks.

        The future is the result of a task that has the bytes. So each worker fetches them once, from the scheduler or
        from another worker. When all workers that had them are gone, the scheduler runs that task again.
        """
        return client.submit(NativeLibrary, self.data, self.functions, self.name, self.digest)

    def open(self, fresh=False):
        """The loaded library, for a `with` block, after which its functions must not be called.

        All tasks of a worker share one instance with its variables, as with `ctypes.CDLL`. `fresh` gives an instance
        that no other task has.
        """
        return CACHE.open(self, fresh)

    def instantiate(self, template):
        """An instance of its template, with the types of the functions."""
        library = template.instantiate()
        try:
            for name, (result, arguments) in self._types.items():
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments
        except memdl.Error:
            close(library)
            raise
        return library

    def __reduce__(self):
        # The constructor checks the digest wherever the bytes arrive.
        return NativeLibrary, (self.data, self.functions, self.name, self.digest)

    def __sizeof__(self):
        # Dask weighs by it where a task runs, and what a worker keeps in memory.
        return object.__sizeof__(self) + len(self.data)

    def __repr__(self):
        return f"<NativeLibrary {self.name!r}, {len(self.data)} bytes, {self.digest[:12]}>"


def signature(text):
    """The types of ctypes for `"result (argument, ...)"`, as C writes them."""
    match = re.fullmatch(r"([^()]+)\(([^()]*)\)", text.strip())
    if not match:
        raise ValueError(f"{text!r} is no signature. Write it as 'double (double *, size_t)'.")
    result, arguments = match.groups()
    arguments = [] if arguments.strip() in ("", "void") else arguments.split(",")
    return _type(result), [_type(argument) for argument in arguments]


def _type(text):
    text = " ".join(word for word in text.replace("*", " * ").split() if word != "const")
    if text == "char *":
        return ctypes.c_char_p
    if text.endswith("*"):
        pointed = _type(text[:-1])
        return ctypes.c_void_p if pointed is None else ctypes.POINTER(pointed)
    if text not in TYPES:
        raise ValueError(f"The type {text!r} is not known. Use one of {', '.join(TYPES)}, or add it to native.TYPES.")
    return TYPES[text]


class Cache:
    """The templates of a process, each with the instance that tasks share. The least recently used go first."""

    def __init__(self, limit):
        self.limit = limit
        """How many bytes the files of all libraries may have. What tasks use stays, also above it."""
        self.loads = 0
        """How many libraries were loaded, each again after it had gone."""
        self._entries = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def open(self, native, fresh=False):
        with self._lock:
            entry = self._entries.get(native.key)
            if entry is None:
                entry = self._entries[native.key] = _Entry(native)
                self._size += entry.size
                self.loads += 1
            self._entries.move_to_end(native.key)
            entry.users += 1
            self._shrink()
        try:
            if not fresh:
                yield entry.shared
                return
            own = native.instantiate(entry.template)
            try:
                yield own
            finally:
                close(own)
        finally:
            with self._lock:
                entry.users -= 1
                self._shrink()

    def __len__(self):
        return len(self._entries)

    def _shrink(self):
        if self._size <= self.limit:
            return
        for key, entry in list(self._entries.items()):
            if entry.users == 0:
                del self._entries[key]
                self._size -= entry.size
                close(entry.shared)
                if self._size <= self.limit:
                    break


class _Entry:
    def __init__(self, native):
        self.template = memdl.prepare(native.data, name=native.name)
        self.shared = native.instantiate(self.template)
        self.size = len(native.data)
        self.users = 0


def close(library):
    """Unloads a library, and logs what keeps it loaded."""
    reason = library.close()
    if reason:
        log.warning("%s stays in memory: %s", library.name, reason)


# As each option of Dask: in its configuration files, or as DASK_NATIVE__CACHE in the environment.
CACHE = Cache(parse_bytes(dask.config.get("native.cache", "256 MiB")))
