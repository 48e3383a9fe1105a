#!/bin/sh
# Runs the example, its tests and its benchmark in a virtual environment: sh examples/dask/test.sh
#
# MEMDL_WHEEL is a wheel of the Python package; without it, one is built from python/. PYTHON is the interpreter,
# python3 by default. The tests need cc and gdb.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=${CARGO_TARGET_DIR:-$here/../../target}/examples/dask
mkdir -p "$work"
work=$(cd "$work" && pwd)
wheel=${MEMDL_WHEEL:+$(realpath "$MEMDL_WHEEL")}
cd "$here"
for tool in cc gdb timeout; do
    command -v "$tool" > /dev/null || { echo "no $tool: install it" >&2; exit 1; }
done

test -x "$work/venv/bin/python" || "${PYTHON:-python3}" -m venv "$work/venv"
timeout -s KILL 600 "$work/venv/bin/pip" install --quiet 'dask[distributed]==2026.8.0' pytest
if [ -z "$wheel" ]; then
    timeout -s KILL 600 "$work/venv/bin/pip" install --quiet 'maturin>=1.9,<2'
    rm -rf "$work/wheel"
    timeout -s KILL 1800 "$work/venv/bin/maturin" build --quiet --release --manifest-path ../../python/Cargo.toml \
        --target-dir "$work/cargo" --out "$work/wheel"
    wheel=$(ls "$work"/wheel/*.whl)
fi
"$work/venv/bin/pip" install --quiet --force-reinstall --no-deps "$wheel"

# Workers that outlive a client that was killed end by themselves: their nannies are gone.
timeout -s KILL 120 "$work/venv/bin/python" example.py
timeout -s KILL 600 "$work/venv/bin/python" -m pytest -q -p no:cacheprovider test_dask.py
timeout -s KILL 300 "$work/venv/bin/python" bench.py 1
