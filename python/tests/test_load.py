"""Libraries from bytes, with calls as ctypes has them."""

import ctypes
import gc
import mmap
import os
import pickle

import pytest

import memdl
from helpers import compile_library, python


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    flags = ["-Wl,-soname,liblibrary.so", "-Wl,--build-id=0x0123456789abcdef"]
    return compile_library(tmp_path_factory.mktemp("load") / "liblibrary.so", "library.c", *flags)


@pytest.fixture(scope="module")
def data(path):
    return path.read_bytes()


@pytest.fixture(scope="module")
def needing(path):
    source = "int add(int, int); int twice(int x) { return add(x, x); }"
    output = path.with_name("libneeding.so")
    return compile_library(output, source, f"-L{path.parent}", "-llibrary").read_bytes()


def test_functions_are_those_of_ctypes(data):
    with memdl.load(data) as library:
        assert library.add(1, 2) == 3
        library.half.argtypes, library.half.restype = [ctypes.c_double], ctypes.c_double
        assert library.half(5) == 2.5
        library.text.restype = ctypes.c_char_p
        assert library.text() == b"from memory"
        with pytest.raises(ctypes.ArgumentError):
            library.half("five")
        # An attribute is made once, an item each time.
        assert library.half is library.half and library["half"] is not library.half
        assert library["half"].restype is ctypes.c_int and library.half.__name__ == "half"


def test_variables_and_addresses(data):
    with memdl.load(data) as library:
        count = library.data(ctypes.c_int, "count")
        count.value = 41
        assert library.increment() == 42 and count.value == 42
        start, end = library.address_range
        assert start <= library.symbol_address("count") < end
        assert ctypes.c_int.from_address(library.symbol_address("own")).value == 5
        assert {"add", "count", "own"} <= set(library.symbols())


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer(data, kind):
    with memdl.load(kind(data)) as library:
        assert library.add(20, 22) == 42


def test_a_mapped_file(path):
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        with memdl.load(mapped) as library:
            mapped.close()  # the library does not refer to it
            assert library.add(20, 22) == 42


def test_what_is_no_buffer(data):
    for wrong in ["text", 5, None]:
        with pytest.raises(TypeError):
            memdl.load(wrong)


def test_two_loads_are_two_libraries(data):
    with memdl.load(data, name="one") as one, memdl.load(data, name="other") as other:
        one.increment()
        assert (one.data(ctypes.c_int, "count").value, other.data(ctypes.c_int, "count").value) == (8, 7)
        assert [image.name for image in memdl.images()] == ["one", "other"]
    assert memdl.images() == []


def test_close(data):
    library = memdl.load(data)
    assert library.close() is None and library.close() is None
    with pytest.raises(ValueError, match="the library is closed"):
        library.symbol_address("add")
    assert memdl.images() == []


def test_a_library_stays_unless_it_is_closed(data):
    # Functions and addresses may be anywhere.
    python(
        """
import gc, sys, ctypes, memdl
address = memdl.load(open(sys.argv[1], "rb").read()).symbol_address("increment")
gc.collect()
assert ctypes.CFUNCTYPE(ctypes.c_int)(address)() == 8
""",
        os.fspath(_file(data)),
    )


def _file(data):
    import tempfile

    file = tempfile.NamedTemporaryFile(suffix=".so", delete=False)
    file.write(data)
    file.close()
    return file.name


def test_a_library_cannot_be_pickled(data):
    with memdl.load(data) as library, pytest.raises(TypeError, match="Pickle the bytes"):
        pickle.dumps(library)


def test_missing_symbols(data):
    with memdl.load(data, name="lib") as library:
        assert not hasattr(library, "no_such")
        for look in [lambda: library.no_such, lambda: library["no_such"], lambda: library.symbol_address("no_such")]:
            with pytest.raises(AttributeError, match="lib: no symbol `no_such`") as raised:
                look()
            assert isinstance(raised.value, memdl.Error) and raised.value.code == "symbol_not_found"


def test_errors_have_codes():
    with pytest.raises(memdl.Error, match="not an ELF file") as raised:
        memdl.load(b"#!/bin/sh\n", name="script")
    assert (raised.value.code, raised.value.image, raised.value.missing) == ("malformed", "script", ())
    same = pickle.loads(pickle.dumps(raised.value))
    assert (type(same), str(same), same.code, same.image) == (memdl.Error, str(raised.value), "malformed", "script")


def test_errors_list_what_is_missing(needing):
    with pytest.raises(memdl.Error) as raised:
        memdl.load(needing, name="needing")
    (missing,) = raised.value.missing
    assert raised.value.code == "missing"
    assert (missing.kind, missing.name, missing.needed_by) == ("library", "liblibrary.so", "needing")
    assert "needed={name: bytes}" in str(raised.value) and "Loader::" not in str(raised.value)
    undefined = compile_to_bytes("int nowhere(void); int f(void) { return nowhere(); }")
    with pytest.raises(memdl.Error) as raised:
        memdl.load(undefined)
    assert [(it.kind, it.name) for it in raised.value.missing] == [("symbol", "nowhere")]
    assert "define={name: address}" in str(raised.value) and "Loader::" not in str(raised.value)


def compile_to_bytes(source):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        return compile_library(Path(folder) / "lib.so", source).read_bytes()


def test_needed_by_a_mapping(data, needing):
    with memdl.load(needing, needed={"liblibrary.so": data}) as library:
        assert library.twice(21) == 42
    # A library that is loaded.
    with memdl.load(data) as below, memdl.load(needing, needed={"liblibrary.so": below}) as library:
        assert library.symbol_address("add") == below.symbol_address("add")
        library.close()


def test_needed_by_a_function(data, needing):
    asked = []

    def supply(request):
        asked.append((request.name, request.needed_by, request.folders))
        return ("/archive/liblibrary.so", data) if request.name == "liblibrary.so" else None

    with memdl.load(needing, name="/archive/needing.so", needed=supply) as library:
        assert library.twice(21) == 42
        assert memdl.images()[1].name == "/archive/liblibrary.so"
    assert ("liblibrary.so", "/archive/needing.so", []) in asked


def test_what_needed_raises_is_raised(needing):
    def supply(request):
        raise ConnectionError("the store is offline")

    for function in memdl.load, memdl.prepare, memdl.inspect:
        with pytest.raises(ConnectionError, match="the store is offline"):
            function(needing, needed=supply)
    for wrong in [5, "liblibrary.so"]:
        with pytest.raises(TypeError):
            memdl.load(needing, needed=wrong)
    with pytest.raises(TypeError):
        memdl.load(needing, needed={"liblibrary.so": 5})
    assert memdl.images() == []


def test_a_namespace(data, needing):
    space = memdl.Namespace()
    with memdl.load(data, namespace=space) as below, memdl.load(needing, namespace=space) as library:
        assert library.symbol_address("add") == below.symbol_address("add")
        library.close()


def test_modes():
    caller = compile_to_bytes("int shared_number(void); int call(void) { return shared_number(); }")
    definer = compile_to_bytes("int shared_number(void) { return 42; }")
    with memdl.load(definer):
        with pytest.raises(memdl.Error):
            memdl.load(caller)
    with memdl.load(definer, mode=os.RTLD_NOW | os.RTLD_GLOBAL) as library, memdl.load(caller) as user:
        assert user.call() == 42
        user.close()
        library.close()
    with memdl.load(caller, mode=os.RTLD_LAZY):
        pass  # the missing function is not called


def test_define():
    caller = compile_to_bytes("int number(void); int call(void) { return number(); }")
    number = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 42)
    address = ctypes.cast(number, ctypes.c_void_p).value
    with memdl.load(caller, define={"number": address}) as library:
        assert library.call() == 42


def test_system_libraries_can_be_forbidden(needing):
    with pytest.raises(memdl.Error, match=r"system_libraries=False was chosen"):
        memdl.load(needing, system_libraries=False)


def test_templates(data):
    template = memdl.prepare(data, name="instance")
    with template.instantiate() as one, template.instantiate() as other:
        one.increment()
        assert one.increment() == 9 and other.increment() == 8
        assert {image.template for image in memdl.images()} == {template.id}
        assert template.name == one.name == "instance"


def test_debug_levels(data):
    with memdl.load(data) as library:
        assert library.debug == "full"
        library.set_debug("symbols")
        assert library.debug == memdl.images()[0].debug == "symbols"
    with pytest.raises(ValueError, match="loud"):
        memdl.load(data, debug="loud")


def test_inspect(data, needing):
    report = memdl.inspect(data)
    assert (report.soname, report.machine, report.size) == ("liblibrary.so", "x86-64", len(data))
    assert report.is_for_this_machine
    theirs = data[:18] + bytes([243, 0]) + data[20:]
    report = memdl.inspect(theirs)
    assert (report.machine, report.is_for_this_machine) == ("RISC-V", False)
    (refusal,) = report.refusals
    assert "an image for RISC-V; this process is" in str(refusal)
    assert report.build_id == "0123456789abcdef" and "add" in report.exports and report.refusals == ()
    report = memdl.inspect(needing)
    assert "liblibrary.so" in report.needed and "add" in report.imports
    assert [error.code for error in report.refusals] == ["missing"]
    assert "liblibrary.so" in str(report)
    assert memdl.images() == []


def test_constructors_hold_the_gil():
    source = "int PyGILState_Check(void); int held; __attribute__((constructor)) void f(void) { held = PyGILState_Check(); }"
    with memdl.load(compile_to_bytes(source)) as library:
        assert library.data(ctypes.c_int, "held").value == 1


def test_destructors_run_when_the_process_exits():
    source = '#include <unistd.h>\n__attribute__((destructor)) void f(void) { write(1, "gone", 4); }'
    code = "import sys, memdl; memdl.load(open(sys.argv[1], 'rb').read())"
    assert python(code, _file(compile_to_bytes(source))) == "gone"


def test_functions_hold_their_library(data):
    add = memdl.load(data).add
    gc.collect()
    assert add(40, 2) == 42 and add._library.close() is None


def test_the_version_is_that_of_the_package():
    from importlib.metadata import version

    assert memdl.__version__ == version("memdl")
