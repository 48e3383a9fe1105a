"""What several tests use: a compiler, zip files, and processes with a time limit."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

SOURCES = Path(__file__).parent / "extensions"
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")


def compile_library(output, source, *flags):
    """Compiles C: the name of a file in `extensions/`, or text."""
    output.parent.mkdir(parents=True, exist_ok=True)
    command = ["gcc", "-shared", "-fPIC", "-g", "-O1", "-o", str(output), "-I" + sysconfig.get_paths()["include"]]
    if source.endswith(".c"):
        subprocess.run([*command, str(SOURCES / source), *flags], check=True)
    else:
        subprocess.run([*command, "-xc", "-", *flags], input=source, text=True, check=True)
    return output


def zip_folder(archive, folder):
    """A zip file of all that is in a folder."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for path in sorted(folder.rglob("*")):
            zipped.write(path, path.relative_to(folder))
    return archive


def python(code, *arguments, limit=60, **environment):
    """Runs a script in a fresh process, which must end well and in time. Returns what it prints."""
    command = ["timeout", "-s", "KILL", str(limit), sys.executable, "-X", "faulthandler", "-c", code]
    result = subprocess.run(
        [*command, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
        cwd="/",
    )
    assert result.returncode == 0, f"status {result.returncode}\n{result.stdout}"
    return result.stdout
