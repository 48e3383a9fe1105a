#!/bin/sh
# Installs what the tests use: compilers, linkers, debuggers, and libraries that they load. Without root, or
# without apt-get, it says what is missing, and fails. What this release of Debian or Ubuntu does not have at
# all, it says on a line that begins with "not in this release:".
set -eu
packages="gcc g++ clang lld llvm mold binutils dwz elfutils gfortran libc6-dev
    gdb gdbserver strace gzip xz-utils zstd python3 linux-perf/linux-tools-generic valgrind
    zlib1g libsqlite3-0/libsqlite3-0t64 libssl3/libssl3t64/libssl1.1 libgomp1"
# For tests/loader/real_programs.rs: a Go compiler, and libraries that are no dependency of the packages
# above (as gfortran's run-time library and libLLVM are).
packages="$packages golang-go libopenblas0-pthread libjemalloc2"
# For tests/capi/roots.rs: a garbage collector. gcc brings its sanitizers.
packages="$packages libgc-dev"
# For tests/capi/sanitizers.rs: clang's sanitizers.
packages="$packages libclang-rt-dev/libclang-common-11-dev"
# For tests/capi/unwinders.rs: another unwinder, and profilers that use it.
packages="$packages libunwind-dev google-perftools/libgoogle-perftools-dev heaptrack"
# For tests/capi/installed.rs.
packages="$packages cmake pkg-config/pkgconf man-db groff-base"
# For tests/loader/shim.rs: programs whose libraries memdl loads.
packages="$packages perl libdbi-perl libdbd-sqlite3-perl openssl"

is_installed() {
    dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed'
}

# The version that apt would install, or nothing.
candidate() {
    apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: //p' | grep -v '(none)'
}

# A machine that has no package lists yet knows no versions, nor what its release has.
[ -n "$(candidate gcc)" ] || [ "$(id -u)" != 0 ] || apt-get update -qq
has_lists=$(candidate gcc)
# The libraries of the release's own perl and python3.
perl=$(candidate perl | cut -d. -f1,2)
python=$(candidate python3 | cut -d. -f1,2)
packages="$packages libperl$perl libpython${python:-3.11}"
# Since Debian 13 gold is a package of its own.
command -v ld.gold >/dev/null || packages="$packages binutils-gold/binutils"

missing=
absent=
for names in $packages; do
    found=
    # Of names with slashes between, each is the name in some release.
    for package in $(echo "$names" | tr / ' '); do
        if is_installed "$package"; then
            found=yes
        elif [ -z "$found" ] && { [ -z "$has_lists" ] || [ -n "$(candidate "$package")" ]; }; then
            missing="$missing $package"
            found=yes
        fi
    done
    [ -n "$found" ] || absent="$absent $names"
done
[ -z "$absent" ] || echo "not in this release:$absent"
if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "tests/setup.sh: please install:$missing" >&2
        exit 1
    fi
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
fi
command -v ld.gold >/dev/null || echo "not in this release: gold"
# For tests/debuggers. The packages of two lldbs cannot be installed together: they are unpacked. gdb talks the
# Debug Adapter Protocol since version 14.
[ -n "${MEMDL_TEST_LLDB:-}" ] ||
    sh "$(dirname "$0")/debuggers.sh" bookworm/lldb-14 bookworm/lldb-19 trixie/gdb >/dev/null
# LLVM's unwinder cannot be installed beside the other one, either.
sh "$(dirname "$0")/llvm.sh"
