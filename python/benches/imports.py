"""What imports cost beside those from a folder: `python benches/imports.py WHEELS [RUNS]`.

WHEELS is a folder with the wheels of `tests/wheels.txt` and of what they need (`pip download`). Each run is a fresh
process, which says how long the import took, memdl.importer included, and how much of the processor's time. The ways
take turns, so that what else the machine does meets all of them. Prints tables of medians, in milliseconds.
"""

import compileall
import os
import statistics
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

MODULES = ["lxml.etree", "numpy", "scipy.linalg", "pandas", "pyarrow"]

PLAIN = """
import sys, time
sys.path[:0] = sys.argv[2:]
start = time.perf_counter(), time.process_time()
"""
HOOK = """
import memdl.importer
memdl.importer.install()
"""
IMPORT = """
__import__(sys.argv[1])
print(time.perf_counter() - start[0], time.process_time() - start[1])
"""


def pack(folder, archive):
    """A zip file of an installed folder that needs the least work: bytecode beside the source, nothing compressed."""
    compileall.compile_dir(folder, quiet=2, legacy=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as output:
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                output.write(path, path.relative_to(folder))


def measure(code, module, paths, debug):
    command = ["timeout", "-s", "KILL", "120", sys.executable, "-c", code, module, *map(str, paths)]
    environment = {**os.environ, "MEMDL_DEBUG": debug}
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment, cwd="/")
    return [1000 * float(text) for text in result.stdout.split()[-2:]]


def main(wheels, runs=9):
    wheels = sorted(Path(wheels).resolve().glob("*.whl"))
    with tempfile.TemporaryDirectory() as temporary:
        folder, archive = Path(temporary) / "installed", Path(temporary) / "packed.zip"
        install = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(folder)]
        subprocess.run([sys.executable, *install, *map(str, wheels)], check=True)
        pack(folder, archive)
        ways = {
            "folder": (PLAIN + IMPORT, [folder], "off"),
            "packed": (PLAIN + HOOK + IMPORT, [archive], "full"),
            "packed, debug off": (PLAIN + HOOK + IMPORT, [archive], "off"),
            "wheels": (PLAIN + HOOK + IMPORT, wheels, "full"),
        }
        tables = [], []
        for module in MODULES:
            times = {way: [] for way in ways}
            # The first round fills the system's caches.
            for turn in range(runs + 1):
                for way, arguments in ways.items():
                    measured = measure(arguments[0], module, *arguments[1:])
                    if turn > 0:
                        times[way].append(measured)
            for index, table in enumerate(tables):
                medians = (f"{statistics.median(it[index] for it in values):,.0f}" for values in times.values())
                table.append(f"| `{module}` | {' | '.join(medians)} |")
        for what, table in zip(["time", "processor's time"], tables):
            print(f"| {what} |", " | ".join(ways), "|")
            print("|---|" + "---:|" * len(ways))
            print("\n".join(table), end="\n\n")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
