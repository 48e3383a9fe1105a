#!/bin/sh
# Cross-compiles memdl and its tests for AArch64, and runs them on this x86-64 machine:
#
#     sh tests/aarch64/run.sh [PART...]
#
#     quick     a few minutes: the tests of loading under qemu-user that differ most, and a session of gdb
#     cases     the collection of loader cases, beside `dlopen` (tests/aarch64/cases.sh)
#     loader    unit tests and the tests of loading under qemu-user, in three ways
#     gdb       gdb-multiarch on qemu-user's stub: scenarios of tests/debuggers, in two forms
#     system    on an emulated machine with a kernel of its own (tests/aarch64/system.sh): what qemu-user has not, and a
#               gdb that starts hosts, attaches to them and reads cores; MEMDL_AARCH64_PAGES=16k has larger pages
#
# Without a part, all but `quick`. tests/aarch64/*.skip list the tests that are left out, with the reasons. A filter for
# the names of tests is in FILTER. tests/aarch64/setup.sh makes the toolchain.
set -eu
self=$(basename "$0")
cd "$(dirname "$0")/../.."
[ -n "${MEMDL_AARCH64_BESIDE:-}" ] || exec sh tests/aarch64/beside.sh sh "tests/aarch64/$self" "$@"
parts=${*:-cases loader gdb system}
folder=$(sh tests/aarch64/setup.sh)
. "$folder/env"
# Not the one that looks for files in another root.
export QEMU="$folder/tools/usr/bin/qemu-aarch64-static"
target=aarch64-unknown-linux-gnu
mkdir -p "${CARGO_TARGET_DIR:-target}/aarch64-build"
build=$(cd "${CARGO_TARGET_DIR:-target}/aarch64-build" && pwd)
bad=

# Builds the test binaries, and sets `lib`, `loader` and `debuggers` to their paths.
build_tests() {
    [ -z "${loader:-}" ] || return 0
    cargo test --no-run --target "$target" --target-dir "$build" --features capi,internals \
        --lib --test loader --test debuggers 2>"$build/log" || { cat "$build/log" >&2; exit 1; }
    binary() { sed -n "s|^ *Executable $1 (\(.*\))\$|\1|p" "$build/log"; }
    lib=$(binary "unittests src/lib.rs")
    loader=$(binary tests/loader/main.rs)
    # With an index: it takes gdb long to read all that is in the binary where it is emulated.
    debuggers=$build/debuggers
    made=$(binary tests/debuggers/main.rs)
    if [ ! "$debuggers" -nt "$made" ]; then
        "$GDB" -nx -batch -ex "save gdb-index $build" "$made" >"$build/log" 2>&1
        "$folder/bin/aarch64-linux-gnu-objcopy" --add-section ".gdb_index=$build/${made##*/}.gdb-index" \
            --set-section-flags .gdb_index=readonly "$made" "$debuggers"
    fi
}

# Prints the names in a list, as options that leave these tests out.
skips() { sed '/^#/d;/^$/d;s/^/--skip /' "$1"; }

# Runs a test binary under qemu-user: the first argument is the limit in seconds.
emulated() {
    seconds=$1
    shift
    MEMDL_TEST_RUNNER=$QEMU PATH="$folder/path:$PATH" timeout -k 5 "$seconds" "$QEMU" "$@"
}

# Runs a step, and notes it if it fails.
step() {
    echo "== aarch64: $*"
    start=$(date +%s)
    "$@" || { bad="$bad
$*"; echo "FAILED: $*"; }
    echo "== $(($(date +%s) - start)) s"
}

# shellcheck disable=SC2046,SC2086
user_lib() { emulated 900 "$lib" $(skips tests/aarch64/user.skip) ${FILTER:-}; }

# The tests $2... of loading, in the way $1.
# shellcheck disable=SC2046,SC2086
user_loader() {
    way=$1
    shift
    MEMDL_TEST_WAY=$way emulated 1800 "$loader" $(skips tests/aarch64/user.skip) "$@" ${FILTER:-}
}

# The scenarios $2... in the form $1.
# shellcheck disable=SC2086
user_gdb() {
    form=$1
    shift
    MEMDL_TEST_FORM=$form MEMDL_TEST_GDB=$GDB MEMDL_TEST_STUB="$PWD/tests/aarch64/stub.py" \
        emulated 1800 "$debuggers" $(skips tests/aarch64/gdb.skip) "$@" ${FILTER:-}
}

modules="loading:: files:: filters:: lazy:: tls:: unload:: reload:: unwind:: services:: dlinfo:: needed:: namespaces::
    pool:: recycled:: errors:: api:: foreign:: aarch64::"
# By name and by line before the load, locals, backtraces, values, unloading and reloading.
scenarios="parity::breakpoints parity::frames parity::values"

for part in $parts; do
    case $part in
    cases) step sh tests/aarch64/cases.sh ;;
    loader)
        build_tests
        step user_lib
        # shellcheck disable=SC2086
        step user_loader copy $modules
        for way in buffer instance; do
            step user_loader "$way" loading:: lazy:: tls:: unload:: unwind:: services:: needed:: errors::
        done
        ;;
    gdb)
        build_tests
        for form in full portable; do
            # shellcheck disable=SC2086
            step user_gdb "$form" $scenarios gcc_o0_dwarf5
        done
        ;;
    system)
        build_tests
        MEMDL_AARCH64_SECONDS=3600 step sh tests/aarch64/system.sh sh tests/aarch64/inside.sh "$loader" "$debuggers"
        ;;
    quick)
        build_tests
        step user_loader copy lazy:: unwind:: services:: aarch64:: loading::thread_local loading::every_relocation
        step user_gdb full parity::breakpoints::a_temporary_breakpoint_stops_once gcc_o0_dwarf5
        ;;
    *)
        echo "tests/aarch64/run.sh: no part $part" >&2
        exit 2
        ;;
    esac
done
[ -z "$bad" ] || { echo "failed:$bad" >&2; exit 1; }
