"""Runs shared libraries straight from bytes in memory, without a file, and visible to debuggers.

::

    import memdl

    with memdl.load(data) as library:
        print(library.foo(42))

The module :mod:`memdl.importer` imports extension modules from zip files and wheels that nobody unpacked.
"""

from ._errors import Error, Missing, SymbolNotFound
from ._library import Library, Template, inspect, load, prepare
from ._memdl import ImageInfo, LibraryRequest, Namespace, Report, __version__, images

__all__ = [
    "Error",
    "ImageInfo",
    "Library",
    "LibraryRequest",
    "Missing",
    "Namespace",
    "Report",
    "SymbolNotFound",
    "Template",
    "__version__",
    "images",
    "inspect",
    "load",
    "prepare",
]
