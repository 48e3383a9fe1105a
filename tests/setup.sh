#!/bin/sh
# Installs what the tests use: compilers, linkers, debuggers, and libraries that they load. Without root, or
# without apt-get, it says what is missing, and fails.
set -eu
packages="gcc g++ clang lld llvm mold binutils dwz elfutils gfortran libc6-dev
    gdb gdbserver strace xz-utils python3 linux-perf valgrind
    zlib1g libsqlite3-0 libssl3 libpython3.11 libgomp1"
# For tests/loader/real_programs.rs: a Go compiler, and libraries that are no dependency of the packages
# above (as gfortran's run-time library and libLLVM are).
packages="$packages golang-go libopenblas0-pthread libjemalloc2 libperl5.36"
# For tests/capi/roots.rs: a garbage collector. gcc brings its sanitizers.
packages="$packages libgc-dev"
# For tests/loader/shim.rs: programs whose libraries memdl loads.
packages="$packages perl libdbi-perl libdbd-sqlite3-perl openssl"
missing=
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "tests/setup.sh: please install:$missing" >&2
        exit 1
    fi
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
fi
# For tests/debuggers. The packages of two lldbs cannot be installed together: they are unpacked.
[ -n "${MEMDL_TEST_LLDB:-}" ] ||
    sh "$(dirname "$0")/debuggers.sh" bookworm/lldb-14 bookworm/lldb-19 >/dev/null
