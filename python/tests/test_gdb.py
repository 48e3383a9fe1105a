"""gdb sees the frames of extension modules that were imported from archives."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import SUFFIX, compile_library, zip_folder

START = """
import sys, memdl.importer
memdl.importer.install()
sys.path[:0] = sys.argv[1:]
"""


def gdb(tmp_path, script, arguments, *commands):
    """What gdb prints. It is killed after two minutes."""
    file = tmp_path / "script.py"
    file.write_text(START + script)
    command = ["timeout", "-s", "KILL", "120", "gdb", "-nx", "-batch", "-ex", "set debuginfod enabled off"]
    command += ["-ex", "set breakpoint pending on", "-ex", "set width 0", "-ex", "set confirm off"]
    for text in commands:
        command += ["-ex", text]
    command += ["--args", os.path.realpath(sys.executable), str(file), *map(str, arguments)]
    # The interpreter itself, and not the environment's link to it: gdb reads its symbols.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def frames(output):
    """The lines of a backtrace."""
    return [line for line in output.splitlines() if line.startswith("#")]


def test_lines_and_variables_of_a_small_extension(tmp_path):
    source = Path(__file__).parent / "extensions" / "single.c"
    compile_library(tmp_path / "tree" / f"small{SUFFIX}", "single.c", "-DNAME=small", "-DSIZE=0", "-O0")
    archive = zip_folder(tmp_path / "tree.zip", tmp_path / "tree")
    script = "import small\nassert small.answer() == 42\n"
    line = 1 + source.read_text().splitlines().index(
        "static PyObject *answer(PyObject *self, PyObject *unused) { return PyLong_FromLong(42); }"
    )
    output = gdb(
        tmp_path, script, [archive], f"break single.c:{line}", "run", "backtrace", "print initialisations", "continue"
    )
    trace = frames(output)
    assert f"extensions/single.c:{line}" in trace[0] and "answer (self=0x" in trace[0], output
    assert any("Py_RunMain" in frame or "Py_BytesMain" in frame for frame in trace), output
    assert "$1 = 1" in output and "exited normally" in output, output


def test_a_call_of_numpy_down_to_openblas(tmp_path):
    wheels = sorted(Path(os.environ["MEMDL_TEST_WHEELS"]).resolve().glob("numpy-*.whl"))
    script = "import numpy\nassert numpy.linalg.inv(numpy.eye(3) * 2)[0, 0] == 0.5\n"
    output = gdb(tmp_path, script, wheels, "break scipy_dgesv_64_", "run", "backtrace", "continue")
    trace = frames(output)
    # The library that the wheel vendors, two extension modules, and the interpreter.
    assert "scipy_dgesv_64_" in trace[0] and "inv<double>" in trace[1], output
    assert any("PyUFunc_GeneralizedFunctionInternal" in frame for frame in trace), output
    assert any("Py_RunMain" in frame or "Py_BytesMain" in frame for frame in trace), output
    assert "exited normally" in output, output


def test_a_call_of_lxml(tmp_path):
    wheels = sorted(Path(os.environ["MEMDL_TEST_WHEELS"]).resolve().glob("lxml-*.whl"))
    script = "from lxml import etree\nassert etree.fromstring('<a><b/></a>').xpath('count(//b)') == 1\n"
    output = gdb(tmp_path, script, wheels, "break xmlXPathEvalExpression", "run", "backtrace", "continue")
    trace = frames(output)
    assert "xmlXPath" in trace[0], output
    assert any("Py_RunMain" in frame or "Py_BytesMain" in frame for frame in trace), output
    assert "exited normally" in output, output


@pytest.fixture(autouse=True)
def gdb_is_there():
    """A tool that is missing is a failure."""
    subprocess.run(["gdb", "--version"], check=True, stdout=subprocess.DEVNULL)
