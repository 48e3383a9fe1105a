"""Libraries with the interface of :class:`ctypes.CDLL`."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any, Callable, List, Mapping, Optional, Tuple, Type, TypedDict, Union

from . import _memdl

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Library:
    """A shared library that runs from memory, with calls as :class:`ctypes.CDLL` has them.

    ``library.foo`` and ``library["foo"]`` are functions of ctypes: set their ``argtypes`` and ``restype``. They
    release the GIL while they run. Each access by an attribute gives the same object, each access by an item a new
    one.

    A library stays loaded until :meth:`close`, or the end of a ``with`` block, also if nothing refers to the object
    any more: ctypes does not know who has an address of it. Destructors then run when the process exits.
    """

    def __init__(self, image: _memdl.Image) -> None:
        self._image = image
        image_name = image.name

        class Function(ctypes._CFuncPtr):  # type: ignore[name-defined, misc]
            """A function of the library."""

            _flags_ = ctypes._FUNCFLAG_CDECL  # type: ignore[attr-defined]
            _restype_ = ctypes.c_int

            def __repr__(self) -> str:
                return f"<function {getattr(self, '__name__', '?')} of {image_name!r}>"

        self._FuncPtr = Function

    def __getattr__(self, name: str) -> Any:
        # Python asks for names of its protocols (``__array_interface__``), which are no symbols. An object that is not
        # initialised has no attributes to look symbols up with.
        if name.startswith("__") and name.endswith("__") or name in ("_image", "_FuncPtr"):
            raise AttributeError(name)
        function = self[name]
        setattr(self, name, function)
        return function

    def __getitem__(self, name: str) -> Any:
        """A new function object for an exported function."""
        function = self._FuncPtr(self.symbol_address(name))
        function.__name__ = name
        # Who has the function has the library, though that may be closed.
        function._library = self
        return function

    def symbol_address(self, name: str, version: Optional[str] = None) -> int:
        """The address of a symbol, in the library or in those that it needs, as ``dlsym`` and ``dlvsym`` give it.

        Of a thread-local variable, it is the address in this thread. Raises :class:`memdl.SymbolNotFound`.
        """
        return self._image.address(name, version)

    def data(self, kind: Type[Any], name: str) -> Any:
        """A variable of the library, as ``kind.in_dll`` gives it: ``library.data(ctypes.c_int, "count").value``."""
        return kind.from_address(self.symbol_address(name))

    def symbols(self) -> List[str]:
        """The names of all symbols that the library exports."""
        return self._image.symbols()

    def make_global(self) -> None:
        """Makes the exports visible to libraries that are loaded later, as ``RTLD_GLOBAL`` does at the load."""
        self._image.make_global()

    def set_debug(self, level: str) -> None:
        """Changes how much debuggers see: ``"off"``, ``"symbols"``, ``"full"`` or ``"portable"``."""
        self._image.set_debug(level)

    @property
    def name(self) -> str:
        """The name of the library in errors, debuggers and ``/proc/self/maps``."""
        return self._image.name

    @property
    def soname(self) -> Optional[str]:
        """Its ``DT_SONAME``."""
        return self._image.soname

    @property
    def address_range(self) -> Tuple[int, int]:
        """The address of its first page, and the one behind its last page."""
        return self._image.address_range

    @property
    def load_bias(self) -> int:
        """Addresses in the process minus those that the file states."""
        return self._image.load_bias

    @property
    def debug(self) -> str:
        """How much debuggers see of it."""
        return self._image.debug

    def close(self) -> Optional[str]:
        """Runs the destructors and unloads the library. Returns what still keeps it loaded, or ``None``.

        Functions and variables of the library must not be used any more: that ends the process, as after
        ``dlclose``. A second call does nothing.
        """
        return self._image.close()

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} cannot be pickled: it has addresses of this process. Pickle the bytes, and load them")

    def __enter__(self) -> "Library":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<memdl.Library {self.name!r}>"


class Template:
    """A library that is parsed and bound: :func:`memdl.prepare` makes it, and any number of libraries come from it.

    Each has its own data and thread-local storage, and its constructors run.
    """

    def __init__(self, template: _memdl.Template) -> None:
        self._template = template

    def instantiate(self) -> Library:
        """Makes one more instance, and runs its constructors."""
        return Library(self._template.instantiate())

    @property
    def name(self) -> str:
        """The name of its instances."""
        return self._template.name

    @property
    def id(self) -> int:
        """Its number, which no other template of the process has or had: ``ImageInfo.template`` of its instances."""
        return self._template.id

    def __repr__(self) -> str:
        return f"<memdl.Template {self.name!r}>"


class Options(TypedDict, total=False):
    """The options of :func:`load`, :func:`prepare` and :func:`inspect`, which describe them."""

    name: Union[str, "os.PathLike[str]"]
    needed: "_Needed"
    namespace: "_memdl.Namespace"
    mode: int
    define: Mapping[str, int]
    system_libraries: bool
    debug: str
    profile: str


_Data = Union[bytes, bytearray, memoryview, Any]
_Supplied = Union[None, _Data, Library, Tuple[str, _Data]]
_Needed = Union[Mapping[str, Union[_Data, Library]], Callable[["_memdl.LibraryRequest"], _Supplied]]

_OPTIONS = """

    Options:

    ``name``
        The name in errors, debuggers and ``/proc/self/maps``. Default: the ``DT_SONAME``. The folder of a name that is an
        absolute path is ``$ORIGIN``.
    ``needed``
        Libraries that it needs and that the system does not have: a mapping from names to bytes (or to a
        :class:`Library`), or a function. The function is called with a :class:`LibraryRequest`, and returns bytes, a
        tuple of a name and bytes, a :class:`Library`, or ``None``. What it raises, the load raises. It is called, too,
        for what the library opens later with ``dlopen``.
    ``namespace``
        A :class:`Namespace` whose libraries find each other by name. Default: one for each load.
    ``mode``
        ``os.RTLD_NOW``, ``RTLD_LAZY``, ``RTLD_GLOBAL``, ``RTLD_DEEPBIND``, as for ``dlopen``. Default: bound now, and local.
    ``define``
        A mapping from names of symbols to addresses, which come before those of the process.
    ``system_libraries``
        Whether needed libraries that are not in the process may be opened, as ``dlopen`` does. Default: true.
    ``debug``
        How much debuggers see: ``"off"``, ``"symbols"``, ``"full"`` or ``"portable"``. Default: ``"full"``. The variable
        ``MEMDL_DEBUG`` of the environment comes first.
    ``profile``
        What profilers see: ``"off"``, ``"map"``, ``"live-map"``, ``"jitdump"`` or ``"file"``. Default: ``"off"``.
"""


def load(data: _Data, **options: Unpack[Options]) -> Library:
    """Loads a shared library from its bytes: any buffer (``bytes``, ``memoryview``, ``mmap``).

    The buffer need not live on. Its bytes are copied first, unless they are ``bytes``. The GIL is held, as it is by
    ``ctypes.CDLL``: constructors may use Python's API. Raises :class:`memdl.Error`.
    """
    return Library(_loader(options).load(data))


def prepare(data: _Data, **options: Unpack[Options]) -> Template:
    """Parses and binds a shared library, so that instances take less time. It runs no code of the library.

    What the library needs of the system is loaded. Raises :class:`memdl.Error`.
    """
    return Template(_loader(options).prepare(data))


def inspect(data: _Data, **options: Unpack[Options]) -> _memdl.Report:
    """Says what the bytes are, need and offer, and each reason for which a load would be refused.

    It runs no code, and opens no library.
    """
    return _loader(options).inspect(data)


def _loader(options: Mapping[str, Any]) -> _memdl.Loader:
    name = options.get("name")
    return _memdl.Loader(**{**options, "name": None if name is None else os.fspath(name)})


for _function in load, prepare, inspect:
    if _function.__doc__:  # Not under ``python -OO``.
        _function.__doc__ = _function.__doc__.rstrip() + _OPTIONS
