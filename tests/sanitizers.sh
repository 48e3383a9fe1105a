#!/bin/sh
# Runs tests under AddressSanitizer or ThreadSanitizer, one module after the other:
#
#     sh tests/sanitizers.sh address|thread [TEST...] [-- ARGUMENTS OF THE TESTS]
#
# TEST is `lib`, a test binary (`loader`) or one of its modules (`loader::tls`). Without one, the tests in
# tests/sanitizers/modules run. The other files there list suppressions and tests that do not run, with the
# reasons. A module that takes longer than LIMIT seconds (an environment variable) is killed. Output and
# reports, also those of child processes, are in target/sanitizers/log. Not part of CI, since a build takes
# minutes.
#
# Stable Rust has no sanitizers: RUSTC_BOOTSTRAP allows the flag, and rustup's toolchain has the libraries.
# ThreadSanitizer needs an instrumented standard library, too, so its sources: those of Debian's packages
# rustc-web and rust-web-src, which are unpacked into target/sanitizers/debian and not installed.
set -eu
cd "$(dirname "$0")/.."
sanitizer=${1-}
case $sanitizer in
address | thread) shift ;;
*)
    echo "usage: sh tests/sanitizers.sh address|thread [TEST...] [-- ARGUMENTS OF THE TESTS]" >&2
    exit 2
    ;;
esac
target=x86_64-unknown-linux-gnu
folder=$PWD/target/sanitizers
debian=$folder/debian
log=$folder/log/$sanitizer
# Prints the lines of a file without comments and empty lines.
lines() { sed '/^#/d;/^$/d' "tests/sanitizers/$1"; }
modules=
while [ $# -gt 0 ]; do
    [ "$1" = -- ] && { shift; break; }
    modules="$modules $1"
    shift
done
: "${modules:=$(lines modules)}"
# Print cargo's arguments for the binary of a module, and the filter for its tests.
binary() { if [ "$1" = lib ]; then echo --lib; else echo "--test ${1%%::*}"; fi; }
filter() { case $1 in *::*) echo "${1#*::}::" ;; esac; }

# Unpacks Debian's compiler, and adds the sanitizer library of rustup's.
unpack() {
    mkdir -p "$debian/packages" "$debian/root" "$debian/bin"
    # The compiler and the packages that it needs and that are not installed.
    packages=$(apt-get install --simulate --no-install-recommends rustc-web cargo-web \
        libstd-rust-web-dev rust-web-src | sed -n 's/^Inst \([^ ]*\).*/\1/p')
    # shellcheck disable=SC2086
    (cd "$debian/packages" && apt-get download -qq $packages)
    for package in "$debian"/packages/*.deb; do
        dpkg-deb -x "$package" "$debian/root"
    done
    rm -r "$debian/packages"
    cp "$(rustc --print sysroot)/lib/rustlib/$target/lib/librustc-stable_rt.tsan.a" \
        "$debian/root/usr/lib/rustlib/$target/lib/"
    libraries="LD_LIBRARY_PATH=$debian/root/usr/lib/x86_64-linux-gnu"
    printf '#!/bin/sh\n%s exec %s --sysroot %s "$@"\n' \
        "$libraries" "$debian/root/usr/bin/rustc" "$debian/root/usr" > "$debian/bin/rustc"
    printf '#!/bin/sh\n%s exec %s "$@"\n' "$libraries" "$debian/root/usr/bin/cargo" > "$debian/bin/cargo"
    chmod +x "$debian/bin/rustc" "$debian/bin/cargo"
}

# Images bind `__cxa_throw` to the sanitizer's wrapper, which needs a libstdc++ that is loaded from the
# start.
link="-Clink-arg=-Wl,--no-as-needed,-lstdc++,--as-needed"
unset CARGO_ENCODED_RUSTFLAGS
export MEMDL_TEST_SANITIZER="$sanitizer"
export RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=$sanitizer $link"
# The dependencies and the standard library are optimized a little. memdl itself is not: so it builds in a
# third of the time, and the compiler removes no memory access that a sanitizer checks.
export CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_INCREMENTAL=0
export CARGO_PROFILE_DEV_DEBUG=line-tables-only CARGO_PROFILE_DEV_SPLIT_DEBUGINFO=off
# Each process writes its reports to a file of its own.
options="log_path=$log/report:$(lines "$sanitizer.options" | tr '\n' ':')"
arguments="--config profile.dev.package.memdl.opt-level=0 --features capi,internals
    --target $target --target-dir $folder/$sanitizer"
cargo=cargo
if [ "$sanitizer" = address ]; then
    export ASAN_OPTIONS="$options"
else
    [ -x "$debian/bin/cargo" ] || unpack
    cargo=$debian/bin/cargo
    arguments="$arguments -Zbuild-std"
    export RUSTC="$debian/bin/rustc"
    export TSAN_OPTIONS="suppressions=$PWD/tests/sanitizers/thread.supp:$options"
    # The sanitizer walks the list of libraries in each `dlopen`, and lets others fork meanwhile: the child finds
    # the list locked.
    export MEMDL_SOAK_WITHOUT=fork
fi
skip=$({ lines skip; lines "$sanitizer.skip"; } | sed 's/^/--skip /')

mkdir -p "$log" "$folder/$sanitizer/$target"
# What tests/llvm.sh has installed is beside the folder of the tests' own files.
ln -sfn ../../../llvm "$folder/$sanitizer/$target/llvm"
# shellcheck disable=SC2046,SC2086
"$cargo" test --no-run $arguments $(for module in $modules; do binary "$module"; done)
bad=
for module in $modules; do
    mkdir -p "$log/$module"
    rm -f "$log/$module"/* "$log"/report.*
    start=$(date +%s)
    status=0
    # shellcheck disable=SC2046,SC2086
    timeout --kill-after=10 "${LIMIT:-1200}" "$cargo" test $arguments $(binary $module) -- \
        $(filter $module) $skip "$@" > "$log/$module/output" 2>&1 || status=$?
    mv "$log"/report.* "$log/$module" 2> /dev/null || :
    # Sizes that hostile bytes choose are warnings only.
    reports=$(find "$log/$module" -name 'report.*' -exec grep -l -v \
        'WARNING: AddressSanitizer failed to allocate' {} + | wc -l)
    echo "$module: $(($(date +%s) - start)) s, status $status, processes with reports: $reports"
    sed -n '/^test result/p;/^test .*FAILED$/p' "$log/$module/output"
    [ "$status" = 0 ] && [ "$reports" = 0 ] || bad="$bad $module"
done
[ -z "$bad" ] || { echo "reports or failures in:$bad (see $log)" >&2; exit 1; }
