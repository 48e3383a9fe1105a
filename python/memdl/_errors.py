"""The exceptions that memdl raises."""

from __future__ import annotations

from typing import Any, NamedTuple, Optional, Tuple, Type


class Missing(NamedTuple):
    """A library, a version or a symbol that an image needs and that nothing supplies."""

    kind: str
    """``"library"``, ``"version"`` or ``"symbol"``."""
    name: str
    """Its name; of a version, the name of the library that lacks it."""
    version: Optional[str]
    """The version, if the image asks for one."""
    needed_by: str
    """The image that needs it."""
    reason: Optional[str]
    """The system's error, where it was asked to open the library."""


class Error(Exception):
    """Why a load or a lookup failed. A failed load leaves the process as it was."""

    code: str
    """The kind of failure: ``"malformed"``, ``"unsupported"``, ``"processor"``, ``"missing"``, ``"refused"``,
    ``"refused_imports"``, ``"symbol_not_found"``, ``"system"``, ``"out_of_memory"``, ``"debug_info"``, ``"limit"``."""
    image: str
    """The name of the image that the failure is about. Empty if it is about none."""
    missing: Tuple[Missing, ...]
    """What the image needs and nothing supplies, if the code is ``"missing"``."""

    def __init__(self, message: str, *, code: str = "other", image: str = "", missing: Tuple[Missing, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.image = image
        self.missing = missing

    def __reduce__(self) -> Any:
        # Exceptions of worker processes are pickled. The default keeps positional arguments only.
        return _restore, (type(self), self.args[0], self.code, self.image, self.missing)


class SymbolNotFound(Error, AttributeError):
    """A library has no symbol of this name. An ``AttributeError``, as with ctypes."""


def _restore(kind: Type[Error], message: str, code: str, image: str, missing: Tuple[Missing, ...]) -> Error:
    return kind(message, code=code, image=image, missing=missing)
