"""Types of the native half. `memdl` has what is public."""

from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, Union, final

from ._errors import Error

__version__: str

@final
class Namespace:
    """Libraries that find each other by name and by file. It keeps none of them loaded."""

    def __new__(cls) -> Namespace: ...

@final
class LibraryRequest:
    """A library that something needs: what the function `needed` is called with."""

    @property
    def name(self) -> str:
        """The name, as the `DT_NEEDED` entry or the call of `dlopen` has it."""

    @property
    def needed_by(self) -> str:
        """The name of the library that needs it."""

    @property
    def folders(self) -> List[str]:
        """The folders in which that has it searched (`DT_RUNPATH`, `DT_RPATH`), with `$ORIGIN` replaced."""

@final
class Report:
    """What a library is, needs and offers, and every reason for which a load would be refused."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int:
        """The number of bytes."""

    @property
    def machine(self) -> Optional[str]: ...
    @property
    def is_for_this_machine(self) -> bool:
        """Whether that is the machine of this process."""

    @property
    def soname(self) -> Optional[str]: ...
    @property
    def rpath(self) -> Optional[str]: ...
    @property
    def runpath(self) -> Optional[str]: ...
    @property
    def build_id(self) -> Optional[str]: ...
    @property
    def needed(self) -> List[str]:
        """The names of the libraries that it needs, directly."""

    @property
    def imports(self) -> List[str]: ...
    @property
    def exports(self) -> List[str]: ...
    @property
    def debug_information(self) -> List[str]: ...
    @property
    def refusals(self) -> Tuple[Error, ...]:
        """The reasons for which a load would be refused. Empty if it would not be."""

    @property
    def text(self) -> str:
        """All of it, for people."""

@final
class ImageInfo:
    """An image that is loaded."""

    @property
    def name(self) -> str: ...
    @property
    def start(self) -> int:
        """Its first address."""

    @property
    def end(self) -> int:
        """The address behind its last one."""

    @property
    def load_bias(self) -> int: ...
    @property
    def build_id(self) -> Optional[str]: ...
    @property
    def debug(self) -> str: ...
    @property
    def template(self) -> Optional[int]:
        """The number of the template that it is an instance of."""

    @property
    def load(self) -> int:
        """The number of the load that it came with."""

    @property
    def holders(self) -> int:
        """How many hold the images of that load."""

    @property
    def text(self) -> str:
        """One line, as for a crash report."""

def images() -> List[ImageInfo]:
    """All images that memdl has loaded, in the order of their loads."""

@final
class Image:
    @property
    def name(self) -> str: ...
    @property
    def soname(self) -> Optional[str]: ...
    @property
    def load_bias(self) -> int: ...
    @property
    def address_range(self) -> Tuple[int, int]: ...
    @property
    def debug(self) -> str: ...
    def set_debug(self, level: str) -> None: ...
    def make_global(self) -> None: ...
    def symbols(self) -> List[str]: ...
    def address(self, name: str, version: Optional[str] = None) -> int: ...
    def close(self) -> Optional[str]: ...

@final
class Template:
    @property
    def name(self) -> str: ...
    @property
    def id(self) -> int: ...
    def instantiate(self) -> Image: ...

@final
class Loader:
    def __new__(
        cls,
        *,
        name: Optional[str] = None,
        needed: Union[None, Mapping[str, Any], Callable[[LibraryRequest], Any]] = None,
        namespace: Optional[Namespace] = None,
        mode: int = 0,
        define: Optional[Mapping[str, int]] = None,
        system_libraries: bool = True,
        debug: Optional[str] = None,
        profile: Optional[str] = None,
        extension: bool = False,
    ) -> Loader: ...
    def load(self, data: Any) -> Image: ...
    def prepare(self, data: Any) -> Template: ...
    def inspect(self, data: Any) -> Report: ...

def create_module(image: Image, function: str, spec: ModuleSpec) -> Tuple[ModuleType, Optional[int]]: ...
def recreate_module(first: ModuleType, name: str, contents: Dict[str, Any]) -> ModuleType: ...
