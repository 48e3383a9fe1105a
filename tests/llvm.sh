#!/bin/sh
# Unpacks clang with LLVM's C++ library and unwinder beside the machine's own, without installing them: their
# packages conflict with nongnu's libunwind.
#
#     sh tests/llvm.sh
#
# What there is then in target/llvm: clang++, a command that compiles for these libraries; libunwind.so.1. Nothing
# is done if it is there. On a release without such packages it says so.
set -eu
cd "$(dirname "$0")/.."
all=${CARGO_TARGET_DIR:-target}/llvm
mkdir -p "$all"
cd "$all"
all=$PWD

fail() {
    echo "tests/llvm.sh: $*" >&2
    exit 1
}

[ ! -x clang++ ] || exit 0
for tool in apt-get apt-cache dpkg-deb flock; do
    command -v "$tool" >/dev/null || fail "needs $tool: this works on Debian and what comes of it"
done
# Two runs at once would unpack into the same folder.
exec 9>lock
flock 9
[ ! -x clang++ ] || exit 0

version=
for candidate in 19 20 18 17 16 15 14; do
    if apt-cache show "clang-$candidate" "libc++-$candidate-dev" "libunwind-$candidate-dev" \
        >/dev/null 2>&1; then
        version=$candidate
        break
    fi
done
if [ -z "$version" ]; then
    echo "not in this release: clang with LLVM's libunwind"
    exit 0
fi

names="clang-$version libclang-common-$version-dev libclang-rt-$version-dev libc++-$version-dev libc++1-$version
    libc++abi-$version-dev libc++abi1-$version libunwind-$version-dev libunwind-$version"
# What the compiler needs and the machine does not have.
needed=$(apt-get -s -q --no-install-recommends install "clang-$version" 2>/dev/null |
    sed -n 's/^Inst \([^ ]*\) .*/\1/p')
rm -rf packages root
mkdir packages root
for name in $names $needed; do
    # Before 16 the compiler's run-time libraries are in libclang-common.
    apt-cache show "$name" >/dev/null 2>&1 || continue
    echo "$name"
done | sort -u >list
# shellcheck disable=SC2046
(cd packages && apt-get -q -o APT::Sandbox::User= download $(cat ../list)) >log 2>&1 ||
    fail "cannot download:" "$(tail -n 5 log)"
for file in packages/*.deb; do
    dpkg-deb -x "$file" root || fail "cannot unpack $file"
done
rm -r packages
llvm=$all/root/usr/lib/llvm-$version
ln -sf "$llvm/lib/libunwind.so.1" libunwind.so.1
[ -e libunwind.so.1 ] || fail "no libunwind.so.1 in $llvm/lib"
cat >clang++.new <<END
#!/bin/sh
# Made by tests/llvm.sh.
export LD_LIBRARY_PATH=$all/root/usr/lib/$(uname -m)-linux-gnu:$llvm/lib
exec $llvm/bin/clang++ -stdlib=libc++ --unwindlib=libunwind -rtlib=compiler-rt -L$llvm/lib \\
    -Wl,-rpath,$llvm/lib -Wno-unused-command-line-argument "\$@"
END
chmod +x clang++.new
./clang++.new --version >log 2>&1 </dev/null || fail "clang++ does not run:" "$(cat log)"
mv clang++.new clang++
