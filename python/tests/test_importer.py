"""Extension modules from zip files that nobody unpacked. Each import is in a process of its own."""

import importlib.util
import shutil
import zipfile

import pytest

from helpers import SUFFIX, compile_library, python, zip_folder

START = """
import sys
import memdl, memdl.importer
memdl.importer.install()
sys.path[:0] = sys.argv[1:]
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """What a folder of packages has, and a zip file of it."""
    tree = tmp_path_factory.mktemp("importer") / "tree"
    package = tree / "package"
    compile_library(package / f"single{SUFFIX}", "single.c", "-DNAME=single", "-DSIZE=0")
    compile_library(package / f"once{SUFFIX}", "single.c", "-DNAME=once", "-DSIZE=-1")
    compile_library(tree / f"adds_itself{SUFFIX}", "adds_itself.c")
    compile_library(package / f"multi{SUFFIX}", "multi.c", "-DINIT=PyInit_multi")
    compile_library(tree / f"top{SUFFIX}", "multi.c", "-DINIT=PyInit_top")
    compile_library(tree / "stable.abi3.so", "multi.c", "-DINIT=PyInit_stable")
    function = "PyInitU_" + "größe".encode("punycode").decode().replace("-", "_")
    compile_library(package / f"größe{SUFFIX}", "multi.c", f"-DINIT={function}")
    compile_library(package / "inner" / f"__init__{SUFFIX}", "multi.c", "-DINIT=PyInit_inner")
    for name in ["raises", "returns_null", "raises_and_returns", "no_module", "uninitialized", "no_function"]:
        compile_library(tree / f"{name}{SUFFIX}", "broken.c")
    # An extension module comes before source of the same name, a package before both.
    compile_library(tree / f"both{SUFFIX}", "multi.c", "-DINIT=PyInit_both")
    (tree / "both.py").write_text("raise AssertionError('the source was imported')")
    compile_library(tree / f"folder{SUFFIX}", "multi.c", "-DINIT=PyInit_folder")
    (tree / "folder").mkdir()
    (tree / "folder" / "__init__.py").write_text("is_package = True")
    (package / "__init__.py").write_text("from .plain import value")
    (package / "plain.py").write_text("value = 5")
    (package / "inner" / "below.py").write_text("value = 6")
    (package / "data.txt").write_text("data of the package")
    (tree / "spread").mkdir()
    compile_library(tree / "spread" / f"part{SUFFIX}", "multi.c", "-DINIT=PyInit_part")
    zip_folder(tree.with_suffix(".zip"), tree)
    return tree


@pytest.fixture(scope="module")
def archive(tree):
    return tree.with_suffix(".zip")


def test_multi_phase_initialisation(archive):
    python(
        START
        + """
from package import multi, value
import top, stable
assert (multi.answer(), multi.executions, value) == (42, 1, 5)
assert multi.__name__ == "package.multi" and multi.__package__ == "package" and multi.__doc__ == "Multi-phase."
assert multi.__file__.startswith(sys.argv[1] + "/package/multi.") and multi.__spec__.origin == multi.__file__
assert isinstance(multi.__loader__, memdl.importer.ExtensionLoader) and multi.__spec__.has_location
assert top.__package__ == "" and top.answer() == stable.answer() == 42
# As CPython: a reload does not execute it again, a second import makes a second module of one image.
import importlib
importlib.reload(multi)
assert multi.executions == 1
del sys.modules["package.multi"]
again = importlib.import_module("package.multi")
assert again is not multi and again.executions == 2
assert [image.name for image in memdl.images()].count(multi.__file__) == 1
""",
        archive,
    )


def test_single_phase_initialisation(archive):
    python(
        START
        + """
import importlib
from package import single, once
for module, name in (single, "single"), (once, "once"):
    # The full name, which only the import system knows.
    assert module.__name__ == "package." + name and module.answer.__module__ == "package." + name
    assert module.__spec__.name == "package." + name and module.__package__ == "package"
    assert module.answer() == 42 and module.initialisations == 1 and module.state_module() is module
    assert module.__file__ == module.__spec__.origin
assert importlib.reload(single) is single and single.initialisations == 1

# Imported again, the one is initialised again, and the other one has the contents of the first time.
single.extra = once.extra = 1
first_single, first_once = single, once
del sys.modules["package.single"], sys.modules["package.once"]
single, once = map(importlib.import_module, ["package.single", "package.once"])
assert single is not first_single and single.initialisations == 2 and single.state_module() is single
assert once is not first_once and once.initialisations == 1 and once.state_module() is once
assert not hasattr(single, "extra") and not hasattr(once, "extra")
assert once.__name__ == "package.once" and once.__file__ == first_once.__file__
""",
        archive,
    )


def test_a_module_may_add_itself_to_the_state(archive):
    python(START + "import adds_itself; assert adds_itself.is_known", archive)


def test_cpython_does_the_same_from_files(tree):
    """The reference for the two tests above."""
    python(
        """
import sys, importlib
sys.path.insert(0, sys.argv[1])
from package import single, once, multi
for module, name in (single, "single"), (once, "once"):
    assert module.__name__ == "package." + name and module.answer.__module__ == "package." + name
    assert module.initialisations == 1 and module.state_module() is module
importlib.reload(multi)
assert multi.executions == 1 and importlib.reload(single) is single and single.initialisations == 1
del sys.modules["package.single"], sys.modules["package.once"]
single, once = map(importlib.import_module, ["package.single", "package.once"])
assert single.initialisations == 2 and single.state_module() is single
assert once.initialisations == 1 and once.state_module() is once
""",
        tree,
    )


def test_names_that_are_not_ascii(archive):
    python(START + "from package import größe; assert größe.answer() == 42", archive)


def test_packages(archive):
    python(
        START
        + """
import both, folder, package.inner.below, spread.part
assert both.answer() == 42 and folder.is_package
assert package.inner.answer() == 42 and package.inner.below.value == 6
assert package.inner.__path__ == [sys.argv[1] + "/package/inner"] and package.inner.__package__ == "package.inner"
assert spread.part.answer() == 42 and spread.__file__ is None
import pkgutil
names = {module.name: module.ispkg for module in pkgutil.iter_modules(package.__path__)}
assert names["multi"] is False and names["plain"] is False
assert {module.name: module.ispkg for module in pkgutil.iter_modules([sys.argv[1]])}["package"] is True
""",
        archive,
    )


def test_files_of_data(archive):
    python(
        START
        + """
import importlib.resources, inspect, pickle, pkgutil
import package, package.inner
from package import multi
assert pkgutil.get_data("package", "data.txt") == b"data of the package"
if sys.version_info >= (3, 10):
    assert (importlib.resources.files("package") / "data.txt").read_text() == "data of the package"
    assert "below.py" in {path.name for path in importlib.resources.files("package.inner").iterdir()}
assert multi.__loader__.get_data(package.__path__[0] + "/data.txt") == b"data of the package"
assert inspect.getsource(package.plain).strip() == "value = 5" and multi.__loader__.get_source("package.multi") is None
assert pickle.loads(pickle.dumps(multi.answer)) is multi.answer
""",
        archive,
    )


@pytest.mark.parametrize(
    "name, error, text",
    [
        ("raises", "ValueError", "raised by the module"),
        ("returns_null", "SystemError", "initialization of returns_null failed without raising an exception"),
        ("raises_and_returns", "SystemError", "initialization of raises_and_returns raised unreported exception"),
        ("no_module", "SystemError", "initialization of no_module did not return an extension module"),
        ("uninitialized", "SystemError", "init function of uninitialized returned uninitialized object"),
        ("no_function", "ImportError", "PyInit_no_function"),
    ],
)
def test_errors_are_those_of_cpython(tree, archive, name, error, text):
    code = """
try:
    import NAME
except ERROR as error:
    assert "TEXT" in str(error), error
    assert "NAME" not in sys.modules
else:
    raise AssertionError("it was imported")
"""
    code = code.replace("NAME", name).replace("ERROR", error).replace("TEXT", text)
    python("import sys; sys.path.insert(0, sys.argv[1])" + code, tree)
    python(START + code, archive)


def test_from_bytes(tree):
    python(
        """
import sys, memdl.importer
data = open(sys.argv[1], "rb").read()
multi = memdl.importer.load_extension("some.multi", data)
assert multi.answer() == 42 and sys.modules["some.multi"] is multi and multi.__package__ == "some"
assert memdl.importer.load_extension("some.multi", b"") is multi
# Other bytes are another module, also under the same name.
del sys.modules["some.multi"]
assert memdl.importer.load_extension("some.multi", data).executions == 1
try:
    memdl.importer.load_extension("broken.multi", b"no library")
except ImportError as error:
    assert error.name == "broken.multi" and "not an ELF file" in str(error) and "broken.multi" not in sys.modules
else:
    raise AssertionError
""",
        next((tree / "package").glob("multi*.so")),
    )


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """Two wheels as auditwheel makes them: with libraries of their own, of the same name but for a hash."""
    folder = tmp_path_factory.mktemp("wheels")
    for wheel, number in ("one", 1), ("two", 2):
        tree = folder / wheel
        libraries = tree / f"{wheel}.libs"
        base = f"libbase-{number}.so"
        compile_library(libraries / base, f"int base_value(void) {{ return {number}; }}", f"-Wl,-soname,{base}")
        vendored = f"libvendored-{number}.so"
        source = "int base_value(void); int vendored_value(void) { return 40 + base_value(); }"
        rpath = "-Wl,--enable-new-dtags,-rpath,$ORIGIN"
        library = [f"-L{libraries}", f"-l:{base}", rpath, f"-Wl,-soname,{vendored}"]
        compile_library(libraries / vendored, source, *library)
        for module in ["ext", "other"]:
            flags = [f"-DINIT=PyInit_{module}", "-DNEEDS", f"-L{libraries}", f"-l:{vendored}"]
            runpath = f"-Wl,--enable-new-dtags,-rpath,$ORIGIN/../{wheel}.libs"
            compile_library(tree / wheel / f"{module}{SUFFIX}", "multi.c", *flags, runpath)
        (tree / wheel / "__init__.py").write_text("")
        metadata = tree / f"{wheel}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {wheel}\nVersion: 1.0\n")
        zip_folder(folder / f"{wheel}-1.0-py3-none-any.whl", tree)
        shutil.rmtree(tree)
    return sorted(folder.glob("*.whl"))


def test_libraries_in_wheels(wheels):
    python(
        START
        + """
from one import ext as one, other
from two import ext as two
assert (one.answer(), other.answer(), two.answer()) == (41, 41, 42)
names = [image.name for image in memdl.images()]
for library in ["one.libs/libvendored-1.so", "one.libs/libbase-1.so", "two.libs/libvendored-2.so"]:
    (name,) = [name for name in names if name.endswith("/" + library)]
    assert ".whl/" in name and "/../" not in name
assert len(names) == 3 + 4
import importlib.metadata
assert importlib.metadata.version("one") == "1.0"
""",
        *wheels,
    )


def test_two_libraries_of_one_name(tmp_path):
    """Without a hash in the name the first one counts, as with ``dlopen`` from files."""
    folders = []
    for wheel, number in ("one", 1), ("two", 2):
        tree = tmp_path / wheel
        source = f"int vendored_value(void) {{ return {number}; }}"
        compile_library(tree / f"{wheel}.libs" / "libsame.so", source, "-Wl,-soname,libsame.so")
        flags = ["-DINIT=PyInit_ext", "-DNEEDS", f"-L{tree}/{wheel}.libs", "-lsame"]
        runpath = f"-Wl,--enable-new-dtags,-rpath,$ORIGIN/../{wheel}.libs"
        compile_library(tree / wheel / f"ext{SUFFIX}", "multi.c", *flags, runpath)
        zip_folder(tmp_path / f"{wheel}.whl", tree)
        folders.append(tree)
    code = "from one import ext as one; from two import ext as two; assert (one.answer(), two.answer()) == (1, 1)"
    python(START + code, *sorted(tmp_path.glob("*.whl")))
    python("import sys; sys.path[:0] = sys.argv[1:]; " + code, *folders)


def test_a_library_of_another_wheel(wheels, tmp_path):
    """As if both were unpacked into one folder."""
    tree = tmp_path / "user"
    with zipfile.ZipFile(wheels[0]) as wheel:
        wheel.extract("one.libs/libvendored-1.so", tmp_path)
        wheel.extract("one.libs/libbase-1.so", tmp_path)
    libraries = tmp_path / "one.libs"
    flags = ["-DINIT=PyInit_ext", "-DNEEDS", f"-L{libraries}", "-l:libvendored-1.so"]
    runpath = f"-Wl,-rpath-link,{libraries},--enable-new-dtags,-rpath,$ORIGIN/../one.libs"
    compile_library(tree / "user" / f"ext{SUFFIX}", "multi.c", *flags, runpath)
    shutil.rmtree(libraries)
    archive = zip_folder(tmp_path / "user.whl", tree)
    shutil.rmtree(tree)
    code = "import one; from user import ext; assert ext.answer() == 41"
    python(START + code, archive, wheels[0])


def test_a_missing_library_is_an_import_error(wheels, tmp_path):
    archive = tmp_path / "one.whl"
    with zipfile.ZipFile(wheels[0]) as wheel, zipfile.ZipFile(archive, "w") as output:
        for name in wheel.namelist():
            if "libbase" not in name:
                output.writestr(name, wheel.read(name))
    python(
        START
        + """
try:
    from one import ext
except ImportError as error:
    assert "libbase-1.so" in str(error) and error.name == "one.ext" and error.path.endswith(".so")
    assert error.__cause__.missing[0].name == "libbase-1.so"
else:
    raise AssertionError
""",
        archive,
    )


def test_relative_paths(archive):
    code = "import os; os.chdir(sys.argv[2]); sys.path[0] = 'tree.zip'; import top; assert top.answer() == 42"
    python(START + code, archive, archive.parent)


def test_install_and_uninstall(archive):
    python(
        """
import sys, zipimport, memdl.importer
from memdl.importer import ArchiveImporter
sys.path.insert(0, sys.argv[1])
import package  # by the importer of the standard library
assert type(package.__loader__) is zipimport.zipimporter
hooks = list(sys.path_hooks)
memdl.importer.install()
memdl.importer.install()
assert sys.path_hooks.count(ArchiveImporter) == 1
from package import multi  # in a package that was imported before
assert multi.answer() == 42
memdl.importer.uninstall()
memdl.importer.uninstall()
assert sys.path_hooks == hooks
try:
    import top
except ImportError:
    assert multi.answer() == 42
else:
    raise AssertionError
""",
        archive,
    )


def test_dlopen_flags_count(archive, tmp_path):
    source = "int needed_by_other(void) { return 42; }"
    tree = tmp_path / "tree"
    compile_library(tree / f"definer{SUFFIX}", source + '\n#include "Python.h"\nPyMODINIT_FUNC PyInit_definer(void) '
                    '{ static struct PyModuleDef d = {PyModuleDef_HEAD_INIT, "definer", 0, -1, 0}; '
                    "return PyModule_Create(&d); }")
    user = "int needed_by_other(void); int call(void) { return needed_by_other(); }"
    library = compile_library(tmp_path / "user.so", user)
    python(
        START
        + """
import os
sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)
import definer
assert memdl.load(open(sys.argv[2], "rb").read()).call() == 42
""",
        zip_folder(tmp_path / "tree.zip", tree),
        library,
    )


def test_many_threads_import_at_once(archive):
    python(
        START
        + """
import importlib, threading
names = ["package.single", "package.once", "package.multi", "top", "both", "spread.part"] * 4
results, failures = [], []
def load(name):
    try:
        results.append((name, importlib.import_module(name)))
    except BaseException as error:
        failures.append(error)
threads = [threading.Thread(target=load, args=(name,)) for name in names]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert not failures and len(results) == len(names), failures
assert all(sys.modules[name] is module and module.answer() == 42 for name, module in results)
""",
        archive,
    )


def test_the_standard_library_alone_cannot(archive):
    """Else the tests above would show nothing."""
    code = "import sys; sys.path.insert(0, sys.argv[1])\ntry:\n    import top\nexcept ImportError:\n    print('no')"
    assert python(code, archive) == "no\n"
    assert importlib.util.find_spec("memdl.importer") is not None
