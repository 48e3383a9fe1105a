#!/bin/sh
# Builds the wheel, and runs the tests in a virtual environment: `sh python/test.sh [quick]`.
#
# `quick` leaves out the tests that download wheels, and gdb. PYTHON is the interpreter, python3 by default. All that
# this writes is in python/target and python/.test.
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-python3}
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
folder=.test/$version
venv=$folder/venv

test -x "$venv/bin/python" || "$python" -m venv "$venv"
"$venv/bin/pip" install --quiet mypy pytest
"$venv/bin/pip" install --quiet --force-reinstall .

"$venv/bin/mypy" --strict --cache-dir "$folder/mypy" memdl
# From here on `memdl` is the installed package, and not the folder.
cd tests
"../$venv/bin/python" -m pytest -q test_load.py test_importer.py
test "${1:-}" != quick || exit 0

"../$venv/bin/pip" download --quiet --only-binary :all: --dest "../$folder/wheels" -r wheels.txt
MEMDL_TEST_WHEELS=$PWD/../$folder/wheels "../$venv/bin/python" -m pytest -q test_wheels.py test_gdb.py
