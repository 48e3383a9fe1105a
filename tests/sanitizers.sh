#!/bin/sh
# Runs tests under AddressSanitizer or ThreadSanitizer:
#
#     sh tests/sanitizers.sh address|thread [TEST...] [-- ARGUMENTS OF THE TESTS]
#
# TEST is `lib`, a binary of tests (`loader`) or one of its modules (`loader::tls`), each of which is run by
# itself; without any: those where it makes sense. Files in
# tests/sanitizers/ say what is suppressed, and why. Not part of CI: a build takes minutes.
#
# Sanitizers are no part of stable Rust; RUSTC_BOOTSTRAP allows the flag, and rustup's toolchain has the
# libraries. ThreadSanitizer needs the standard library instrumented as well, hence its sources: those of
# Debian's packages rustc-web and rust-web-src, which are unpacked into target/sanitizers/debian, not
# installed.
set -eu
cd "$(dirname "$0")/.."
sanitizer=${1:?address or thread}
shift
target=x86_64-unknown-linux-gnu
folder=$PWD/target/sanitizers
runtimes=$(rustc --print sysroot)/lib/rustlib/$target/lib
tests=
while [ $# -gt 0 ]; do
    [ "$1" = -- ] && { shift; break; }
    tests="$tests $1"
    shift
done
# The lines of a file that are no comments.
said() { sed '/^#/d;/^$/d' "tests/sanitizers/$sanitizer.$1"; }
skip=$(said skip | sed 's/^/--skip /')
export RUSTC_BOOTSTRAP=1 CARGO_PROFILE_DEV_DEBUG=line-tables-only CARGO_PROFILE_DEV_SPLIT_DEBUGINFO=off
# Images bind `__cxa_throw` to the sanitizer's, which wants to find that of a libstdc++ that is there from
# the start.
link="-Clink-arg=-Wl,--no-as-needed,-lstdc++,--as-needed"
unset CARGO_ENCODED_RUSTFLAGS
arguments=$*
# Runs a command for each of the tests, all that were asked for.
run_each() {
    failed=0
    for test in $tests; do
        binary="--test ${test%%::*}" filter=
        case $test in
        lib) binary=--lib ;;
        *::*) filter=${test#*::}:: ;;
        esac
        # shellcheck disable=SC2086
        "$@" $binary -- $filter $skip $arguments || failed=1
    done
    exit $failed
}

case $sanitizer in
address)
    : "${tests:=lib loader::loading loader::api loader::errors loader::tls loader::lazy loader::unwind
        loader::services loader::unload loader::pool loader::symbolize loader::needed loader::fork}"
    export RUSTFLAGS="-Zsanitizer=address $link" ASAN_OPTIONS="$(said options | tr '\n' ':')"
    run_each cargo test --features capi --no-fail-fast --target $target --target-dir "$folder/address"
    ;;
thread)
    : "${tests:=lib loader::pool loader::unload loader::unwind loader::tls loader::symbolize loader::lazy}"
    debian=$folder/debian
    if [ ! -x "$debian/bin/cargo" ]; then
        mkdir -p "$debian/packages" "$debian/root" "$debian/bin"
        # What the compiler needs that is not installed.
        packages=$(apt-get install --simulate --no-install-recommends rustc-web cargo-web \
            libstd-rust-web-dev rust-web-src | sed -n 's/^Inst \([^ ]*\).*/\1/p')
        # shellcheck disable=SC2086
        (cd "$debian/packages" && apt-get download -qq $packages)
        for package in "$debian"/packages/*.deb; do
            dpkg-deb -x "$package" "$debian/root"
        done
        rm -r "$debian/packages"
        cp "$runtimes/librustc-stable_rt.tsan.a" "$debian/root/usr/lib/rustlib/$target/lib/"
        libraries="LD_LIBRARY_PATH=$debian/root/usr/lib/x86_64-linux-gnu"
        printf '#!/bin/sh\n%s exec %s --sysroot %s "$@"\n' \
            "$libraries" "$debian/root/usr/bin/rustc" "$debian/root/usr" > "$debian/bin/rustc"
        printf '#!/bin/sh\n%s exec %s "$@"\n' "$libraries" "$debian/root/usr/bin/cargo" > "$debian/bin/cargo"
        chmod +x "$debian/bin/rustc" "$debian/bin/cargo"
    fi
    export RUSTC="$debian/bin/rustc" RUSTFLAGS="-Zsanitizer=thread $link"
    TSAN_OPTIONS="suppressions=$PWD/tests/sanitizers/thread.supp:$(said options | tr '\n' ':')"
    export TSAN_OPTIONS
    run_each "$debian/bin/cargo" test -Zbuild-std --features capi --no-fail-fast --target $target \
        --target-dir "$folder/thread"
    ;;
*)
    echo "usage: sh tests/sanitizers.sh address|thread [TEST...]" >&2
    exit 2
    ;;
esac
