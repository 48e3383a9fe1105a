#!/bin/sh
# Runs the tests, and the cases of tests/cases.sh, in other releases of Debian: with their C library, compilers,
# linkers and gdb. Prints a table in Markdown of what passed.
#
#     sh tests/releases.sh [RELEASE...]       # default: bullseye trixie sid
#
# Needs root and debootstrap. A release is unpacked once, into target/roots/RELEASE; the output of each run is
# in target/roots/RELEASE.results. The checkout, this machine's Rust toolchain and what cargo has downloaded
# are mounted there, in a namespace that goes with the run: nothing stays mounted, and no process stays.
# A test that fails makes this fail, unless a line of tests/releases.expected-failures says why it must.
#
# Environment: MEMDL_RELEASE_SUITES="loader capi" runs some of what $suites names below;
# MEMDL_RELEASE_FILTER="tls:: unwind::" some tests of these.
#
# A run in one root takes about half an hour on two processors.
set -eu
cd "$(dirname "$0")/.."
checkout=$PWD
suites=${MEMDL_RELEASE_SUITES:-"lib loader capi limits hostile debuggers cases"}
roots=${CARGO_TARGET_DIR:-$checkout/target}/roots
expected=$checkout/tests/releases.expected-failures

fail() {
    echo "tests/releases.sh: $*" >&2
    exit 1
}

# Prints the mirror of Debian that this machine is set up to use.
mirror() {
    # shellcheck disable=SC2016 # apt's own variables
    apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Created-By: Packages' |
        grep -v -e security -e backports | head -n 1
}

# Unpacks the release $1.
unpack() {
    [ -d "$roots/$1" ] && return
    command -v debootstrap >/dev/null || fail "needs debootstrap: apt-get install debootstrap"
    mkdir -p "$roots"
    rm -rf "$roots/$1.new"
    debootstrap --variant=minbase --include=ca-certificates,debian-archive-keyring \
        "$1" "$roots/$1.new" "$(mirror)" >"$roots/$1.log" 2>&1 ||
        fail "cannot unpack $1:" "$(tail -n 5 "$roots/$1.log")"
    # Renamed when it is complete.
    mv "$roots/$1.new" "$roots/$1"
}

# Mounts in the root $1 what the tests need, then runs the rest of the arguments there. Runs in namespaces of its
# own (`in_root`).
enter() {
    root=$1
    shift
    mount --make-rprivate /
    mount --bind "$root" "$root"
    mkdir -p "$root/memdl" "$root/rust" "$root/shared/cases" "$root/root/.cargo/registry" "$root/target"
    mount --bind "$checkout" "$root/memdl"
    mount -o remount,bind,ro "$root/memdl"
    mount --bind "$(rustc --print sysroot)" "$root/rust"
    mount --bind "${CARGO_HOME:-$HOME/.cargo}/registry" "$root/root/.cargo/registry"
    [ ! -d "$checkout/../shared/cases" ] || mount --bind "$checkout/../shared/cases" "$root/shared/cases"
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs tmpfs "$root/tmp"
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    # A release that is over has no fresh lists.
    echo 'Acquire::Check-Valid-Until "false"; Dpkg::Options:: "--force-unsafe-io";' \
        >"$root/etc/apt/apt.conf.d/90memdl"
    # The feature set is that of tests/run.sh. Debug information of the tests costs most of the time of a build.
    exec env -i HOME=/root USER=root LANG=C.UTF-8 TERM=dumb PATH=/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        CARGO_TARGET_DIR=/target CARGO_NET_OFFLINE=true \
        CARGO_INCREMENTAL=0 MEMDL_TEST_LLDB=none http_proxy="${http_proxy:-}" \
        chroot "$root" sh -c 'cd /memdl && exec "$@"' sh "$@"
}

# Runs a command in the root of the release $1.
in_root() {
    root=$roots/$1
    shift
    timeout -s KILL 3600 unshare --mount --pid --fork --kill-child=KILL sh "$checkout/tests/releases.sh" --enter "$root" "$@"
}

# Runs one of $suites. Its output goes to the standard output.
suite() {
    case $1 in
    cases) sh tests/cases.sh ;;
    # lldb has what it needs on one release only: tests/setup.sh.
    debuggers) cargo test -q --features capi,internals --no-fail-fast --test debuggers -- --format=pretty \
        parity sessions alone debug --skip lldb_ ${MEMDL_RELEASE_FILTER:-} ;;
    # shellcheck disable=SC2086
    *)
        case $1 in lib) what=--lib ;; *) what="--test $1" ;; esac
        cargo test -q --features capi,internals --no-fail-fast $what -- --format=pretty ${MEMDL_RELEASE_FILTER:-}
        ;;
    esac
}

# Prints the versions that a release has, as cells of the table. Runs there.
versions() {
    glibc=$(ldd --version | sed -n '1s/.* //p')
    gcc=$(gcc -dumpfullversion)
    gdb=$(gdb --version 2>/dev/null | sed -n '1s/.* //p')
    lds=
    for ld in bfd lld mold gold; do
        if command -v "ld.$ld" >/dev/null; then lds="$lds $ld"; else lds="$lds ~~$ld~~"; fi
    done
    echo "$glibc | $gcc | ${gdb:-none} |$lds"
}

# Prints how many tests of a suite passed, of how many: of its output, in the file $1.
count() {
    sed -n -e 's/^\([0-9]*\) of \([0-9]*\) cases are good.*/\1 of \2/p' \
        -e 's/^test result: [^ ]* \([0-9]*\) passed; \([0-9]*\) failed;.*/\1 + \2/p' "$1" |
        tail -n 1 | awk '$2 == "+" { print $1 " of " $1 + $3; next } { print }'
}

# Prints the names of the tests that failed, of the output in the file $1.
failures() {
    sed -n 's/^FAILED \([^:]*\):.*/\1/p' "$1"
    # The last list is that of the whole run: tests that run on their own have lists in theirs.
    awk '/^failures:$/ { list = ""; inside = 1; next }
        inside && /^    [^ ]+$/ { list = list $1 "\n"; next }
        inside && !/^$/ { inside = 0 }
        END { printf "%s", list }' "$1"
}

# Runs all suites in the release $1. Writes its row of the table, and the list of its failures.
run() {
    results=$roots/$1.results
    mkdir -p "$results"
    : >"$results/failed"
    unpack "$1"
    in_root "$1" sh -c 'apt-get -qq update && exec sh tests/setup.sh' >"$results/setup" 2>&1 ||
        fail "cannot install what the tests need in $1:" "$(tail -n 5 "$results/setup")"
    row="| $1 | $(in_root "$1" sh tests/releases.sh --versions) |"
    for suite in $suites; do
        echo "$1: $suite" >&2
        in_root "$1" sh tests/releases.sh --suite "$suite" >"$results/$suite" 2>&1 || true
        passed=$(count "$results/$suite")
        row="$row ${passed:-did not run} |"
        [ -n "$passed" ] || echo "$1 $suite::all" >>"$results/failed"
        for name in $(failures "$results/$suite"); do
            echo "$1 $suite::$name" >>"$results/failed"
        done
    done
    echo "$row" >"$results/row"
}

case ${1:-} in
--enter)
    shift
    enter "$@"
    ;;
--suite)
    suite "$2"
    exit
    ;;
--versions)
    versions
    exit
    ;;
esac

[ "$(id -u)" = 0 ] || fail "needs root: it mounts what the tests need into another root"
[ $# != 0 ] || set -- bullseye trixie sid
for release; do
    run "$release"
done
echo "| release | glibc | gcc | gdb | linkers |$(for suite in $suites; do printf ' %s |' "$suite"; done)"
echo "|---|---|---|---|---|$(for suite in $suites; do printf -- '---|'; done)"
for release; do cat "$roots/$release.results/row"; done
echo
# A line of $expected: RELEASE SUITE::TEST why
for release; do cat "$roots/$release.results/failed"; done | awk -v expected="$expected" '
    BEGIN {
        while ((getline line < expected) > 0)
            if (line !~ /^(#|$)/) {
                split(line, word, " ")
                why[word[1] " " word[2]] = substr(line, length(word[1] " " word[2]) + 2)
            }
    }
    $0 in why { print "expected: " $0 ": " why[$0]; next }
    { print "FAILED: " $0; failed = 1 }
    END { exit failed }
'
