"""Imports extension modules from zip files and wheels that nobody unpacked, and from bytes.

::

    import sys
    import memdl.importer

    memdl.importer.install()
    sys.path.append("wheels/numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl")
    import numpy

:func:`install` puts :class:`ArchiveImporter` before the importer of zip files of the standard library, which it
extends: what that imports (source, bytecode, namespace packages) and reads (``pkgutil.get_data``,
``importlib.resources``, ``importlib.metadata``), this one does, too.

Libraries that extension modules need are found by their ``DT_RUNPATH`` in the archives, as they would be found if all
archives were unpacked into one folder (``$ORIGIN/../numpy.libs``). All share one namespace: as with ``dlopen``, a
name that was loaded is used for whatever needs it next.
"""

from __future__ import annotations

import _imp
import importlib.machinery
import importlib.util
import os
import posixpath
import sys
import types
import zipimport
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional, Tuple

from . import _memdl
from ._errors import Error

if TYPE_CHECKING:
    from importlib.abc import Loader as _Loader
else:
    # importlib.abc imports so much that a third of the time of importing this module would be for it.
    _Loader = object

__all__ = ["ArchiveImporter", "ExtensionLoader", "install", "load_extension", "uninstall"]

# Images of all archives find each other here.
_namespace = _memdl.Namespace()
# The importer of each archive, by the absolute path of the file.
_archives: Dict[str, "ArchiveImporter"] = {}
# The image of each extension module, by the absolute path that it would have. As those that CPython loads, they stay
# loaded until the process ends.
_images: Dict[str, _memdl.Image] = {}
# Modules that must not be initialised again (single-phase initialisation, `m_size` of -1), by path and name, with
# their first contents. When such a module is imported again, CPython makes a new one with these, too.
_created_once: Dict[Tuple[str, str], Tuple[types.ModuleType, Dict[str, Any]]] = {}
# How much debuggers see of what is imported.
_debug: Optional[str] = None


class ExtensionLoader(_Loader):
    """Loads one extension module from bytes. It is what ``ExtensionFileLoader`` is for files."""

    def __init__(
        self,
        name: str,
        path: str,
        importer: Optional[ArchiveImporter] = None,
        *,
        data: Any = None,
        needed: Any = None,
    ) -> None:
        """``path`` is where the module would lie. Its bytes are ``data``, or what ``importer`` has there."""
        self.name = name
        self.path = path
        self._importer = importer
        self._data = data
        self._needed = needed

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """Creates the module, and initialises it if it has single-phase initialisation."""
        path = os.path.abspath(self.path)
        if self._data is None and (path, spec.name) in _created_once:
            first, contents = _created_once[path, spec.name]
            return _memdl.recreate_module(first, spec.name, contents)
        try:
            module, size = _memdl.create_module(self._image(path), _init_function(spec.name), spec)
        except Error as error:
            raise ImportError(str(error), name=spec.name, path=self.path) from error
        if size is not None:
            module.__file__ = self.path
        if size == -1 and self._data is None:
            _created_once[path, spec.name] = module, dict(module.__dict__)
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Initialises the module if it has multi-phase initialisation."""
        _imp.exec_dynamic(module)

    def _image(self, path: str) -> _memdl.Image:
        if self._data is not None:
            return self._load(path, self._data)
        image = _images.get(path)
        if image is None:
            # Another thread may load the same file for another module: the first image stays.
            image = _images.setdefault(path, self._load(path, self.get_data(self.path)))
        return image

    def _load(self, path: str, data: Any) -> _memdl.Image:
        loader = _memdl.Loader(
            name=path,
            namespace=_namespace,
            mode=sys.getdlopenflags(),
            needed=self._needed or _supply,
            debug=_debug,
            extension=True,
        )
        return loader.load(data)

    def is_package(self, fullname: str) -> bool:
        """Whether the module is the ``__init__`` of a package."""
        return _stem(self.path.rpartition("/")[2]) == "__init__" and fullname.rpartition(".")[2] != "__init__"

    def get_code(self, fullname: str) -> None:
        """``None``: an extension module has no bytecode."""

    def get_source(self, fullname: str) -> None:
        """``None``: an extension module has no source."""

    def get_filename(self, fullname: str) -> str:
        """The path that the module would have."""
        return self.path

    def get_data(self, path: str) -> bytes:
        """The contents of a file of the archive."""
        if self._importer is None:
            raise OSError(f"{path}: the module was loaded from bytes, which are in no archive")
        return self._importer.get_data(path)

    def get_resource_reader(self, fullname: str) -> Any:
        """What ``importlib.resources`` reads a package with."""
        if self._importer is None or not self.is_package(fullname):
            return None
        try:
            from importlib.readers import ZipReader
        except ImportError:  # Python 3.9
            return None
        # The importer says of source and bytecode only whether they are packages, and the reader asks.
        place: Any = types.SimpleNamespace(
            archive=self._importer.archive, prefix=self._importer.prefix, is_package=self.is_package
        )
        return ZipReader(place, fullname)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.path!r})"


class ArchiveImporter(zipimport.zipimporter):
    """Imports what lies in a zip file or a wheel, extension modules included. An element of ``sys.path_hooks``."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        _archives[os.path.abspath(self.archive)] = self

    def find_spec(self, fullname: str, target: Any = None) -> Optional[importlib.machinery.ModuleSpec]:
        """The spec of a module. An extension module comes before source of the same name, as in folders."""
        base = self.prefix + fullname.rpartition(".")[2]
        package = self._extension(base + os.sep + "__init__")
        if package is not None:
            return self._spec(fullname, package)
        found = self._find_python(fullname, target)
        if found is not None and found.submodule_search_locations is not None and found.loader is not None:
            return found
        module = self._extension(base)
        return found if module is None else self._spec(fullname, module)

    def _extension(self, base: str) -> Optional[str]:
        """The name in the archive of the extension module of this name without its suffix."""
        names = (base + suffix for suffix in importlib.machinery.EXTENSION_SUFFIXES)
        contents = self._contents()
        return next((name for name in names if name in contents), None)

    def _contents(self) -> Dict[str, Any]:
        """The names of all files in the archive."""
        # Read once for each archive. Python 3.13 has a function for it.
        contents: Dict[str, Any] = self._get_files() if hasattr(self, "_get_files") else getattr(self, "_files")
        return contents

    def _spec(self, fullname: str, name: str) -> importlib.machinery.ModuleSpec:
        path = self.archive + os.sep + name
        loader = ExtensionLoader(fullname, path, self)
        locations = [path.rpartition(os.sep)[0]] if loader.is_package(fullname) else None
        return _spec(fullname, loader, locations)

    if hasattr(zipimport.zipimporter, "find_spec"):

        def _find_python(self, fullname: str, target: Any) -> Optional[importlib.machinery.ModuleSpec]:
            return super().find_spec(fullname, target)

    else:  # Python 3.9

        def _find_python(self, fullname: str, target: Any) -> Optional[importlib.machinery.ModuleSpec]:
            loader, portions = self.find_loader(fullname)
            if loader is not None:
                return importlib.util.spec_from_loader(fullname, loader)
            if not portions:
                return None
            spec = importlib.machinery.ModuleSpec(fullname, None)
            spec.submodule_search_locations = portions
            return spec


def _spec(
    fullname: str, loader: ExtensionLoader, locations: Optional[List[str]] = None
) -> importlib.machinery.ModuleSpec:
    spec = importlib.machinery.ModuleSpec(fullname, loader, origin=loader.path, is_package=locations is not None)
    spec.has_location = True
    if locations is not None:
        spec.submodule_search_locations = locations
    return spec


def _stem(name: str) -> str:
    """The name of a file without the suffix of extension modules."""
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        if name.endswith(suffix):
            return name[: -len(suffix)]
    return name


def _init_function(fullname: str) -> str:
    """The name of the function that initialises a module (PEP 489)."""
    name = fullname.rpartition(".")[2]
    if name.isascii():
        return "PyInit_" + name
    return "PyInitU_" + name.encode("punycode").decode("ascii").replace("-", "_")


def _supply(request: _memdl.LibraryRequest) -> Optional[Tuple[str, bytes]]:
    """What the archives have of a library that an image needs or opens."""
    if "/" in request.name:
        paths = [request.name]
    else:
        paths = [posixpath.join(folder, request.name) for folder in request.folders]
    for path in paths:
        path = posixpath.normpath(path)
        for archive, name in _places(path):
            importer = _archives[archive]
            if name in importer._contents():
                found = posixpath.join(archive, name)
                return found, importer.get_data(posixpath.join(importer.archive, name))
    return None


def _places(path: str) -> Iterator[Tuple[str, str]]:
    """Where in the archives a path may lie: in its own one, then in all others, as if they were unpacked together."""
    own = next((archive for archive in _archives if path.startswith(archive + "/")), None)
    if own is None:
        return
    name = path[len(own) + 1 :]
    yield own, name
    for archive in _archives:
        if archive != own:
            yield archive, name


def install(*, debug: Optional[str] = None) -> None:
    """Makes zip files and wheels on ``sys.path`` importable with their extension modules, from now on.

    ``debug`` says how much debuggers see of what is imported: ``"off"``, ``"symbols"``, ``"full"`` (the default) or
    ``"portable"``. A second call only changes that.
    """
    global _debug
    _debug = debug
    if ArchiveImporter not in sys.path_hooks:
        hooks = sys.path_hooks
        before = hooks.index(zipimport.zipimporter) if zipimport.zipimporter in hooks else 0
        hooks.insert(before, ArchiveImporter)
        _forget(zipimport.zipimporter)


def uninstall() -> None:
    """Takes the importer out of ``sys.path_hooks``. What was imported stays."""
    if ArchiveImporter in sys.path_hooks:
        sys.path_hooks.remove(ArchiveImporter)
        _forget(ArchiveImporter)


def _forget(kind: type) -> None:
    """Lets Python choose importers anew for paths that have one of this kind."""
    for path, importer in list(sys.path_importer_cache.items()):
        if isinstance(importer, kind):
            del sys.path_importer_cache[path]


def load_extension(fullname: str, data: Any, *, path: Optional[str] = None, needed: Any = None) -> types.ModuleType:
    """Imports the extension module ``fullname`` from its bytes, and returns it.

    ``path`` is where the module would lie, its ``__file__``. Default: ``/memory/`` and its name. ``needed`` supplies
    libraries that it needs, as for :func:`memdl.load`. If ``sys.modules`` has the module, that is returned.
    """
    known = sys.modules.get(fullname)
    if known is not None:
        return known
    if path is None:
        path = f"/memory/{fullname.replace('.', '/')}{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    loader = ExtensionLoader(fullname, path, data=data, needed=needed)
    module = importlib.util.module_from_spec(_spec(fullname, loader))
    # As importlib: there while it is initialised, and gone if that fails.
    sys.modules[fullname] = module
    try:
        loader.exec_module(module)
    except BaseException:
        sys.modules.pop(fullname, None)
        raise
    return sys.modules.get(fullname, module)
