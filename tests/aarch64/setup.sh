#!/bin/sh
# Makes what builds, runs and debugs memdl for AArch64 on an x86-64 machine with Debian 12, and installs nothing:
# compilers of C, C++, Fortran and Rust, linkers, qemu-user, a multi-architecture gdb, and for the system emulator a
# kernel with a small root. Packages are unpacked below one folder.
#
#     sh tests/aarch64/setup.sh [system|16k]
#
# Prints the folder: target/aarch64, or that of the environment variable MEMDL_AARCH64. Nothing is unpacked again.
# `system` adds the system emulator, `16k` also a kernel whose pages have 16 KiB. In the folder:
#
#     env         `. env` names all below, and lets cargo build for the target
#     bin/        commands with the names of a cross toolchain: aarch64-linux-gnu-gcc, qemu-aarch64, gdb-multiarch
#     path/       the same compilers and tools with their plain names (gcc, clang, rustc, strip): whoever has this
#                 folder first in PATH compiles for AArch64. Tests do, which build libraries when they run
#     root/       what an AArch64 machine has: qemu-user and gdb look here for its libraries
#
# Rust is Debian's rustc-web, since rustup's is not at hand everywhere for a second machine.
set -eu
cd "$(dirname "$0")/../.."
folder=${MEMDL_AARCH64:-target/aarch64}
mkdir -p "$folder"
cd "$folder"
folder=$PWD
triple=aarch64-linux-gnu
target=aarch64-unknown-linux-gnu

fail() {
    echo "tests/aarch64/setup.sh: $*" >&2
    exit 1
}

for tool in apt-get apt-cache dpkg-deb flock tar; do
    command -v "$tool" >/dev/null || fail "needs $tool: this works on Debian"
done
[ "$(uname -m)" = x86_64 ] || fail "is written for x86-64, not for $(uname -m)"
# Two runs at once would unpack into the same folders.
exec 9>lock
flock 9

# Prints the mirror of Debian that this machine is set up to use.
mirror() {
    # shellcheck disable=SC2016 # apt's own variables
    apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Created-By: Packages' |
        grep -v -e security -e backports | head -n 1
}

# Prepares apt_here: an apt with a state of its own, as on a machine without any package.
ready_apt() {
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -e "$keys" ] || fail "needs the package debian-archive-keyring ($keys)"
    [ -n "$(mirror)" ] || [ "$(id -u)" != 0 ] || apt-get -qq update
    mirror=$(mirror)
    [ -n "$mirror" ] || fail "apt-get knows no mirror of Debian here: run apt-get update"
    mkdir -p apt/lists/partial apt/cache/archives/partial
    {
        echo "deb [signed-by=$keys] $mirror bookworm main"
        # Where rustc-web is.
        echo "deb [signed-by=$keys] ${mirror%/debian/}/debian-security/ bookworm-security main"
        # Where the kernel for 16 KiB is. Nothing else comes from there, unless it is asked for.
        [ "${1-}" != backports ] || echo "deb [signed-by=$keys] $mirror bookworm-backports main"
    } >apt/sources.list
    : >apt/status
    apt_here apt-get -q update >log 2>&1 || fail "apt-get update:" "$(tail -n 5 log)"
}

# Runs a command of apt there.
apt_here() {
    "$@" -o "Dir::Etc::sourcelist=$folder/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::preferencesparts=/dev/null -o "Dir::State=$folder/apt" \
        -o "Dir::State::lists=$folder/apt/lists" -o "Dir::State::status=$folder/apt/status" \
        -o "Dir::Cache=$folder/apt/cache" -o APT::Sandbox::User= -o APT::Install-Recommends=false \
        -o APT::Architecture=amd64 -o APT::Architectures::=amd64 -o APT::Architectures::=arm64
}

# Packages that every Debian has, and those that only other packages' scripts use.
not_used="libc6|libc-bin|dpkg|tar|perl-base|perl|debconf|gcc|g\+\+|cpp|gfortran|gcc-[0-9]*|cpp-[0-9]*|libcrypt1"
not_used="$not_used|init-system-helpers|tzdata|netbase|adduser|passwd|mount|util-linux.*|coreutils|bash|dash"
not_used="$not_used|sensible-utils|ucf|debianutils|readline-common|login|libpam.*|iso-codes"

# The packages $@ with all that they need, one a line: `libc6` of this machine, `libc6:arm64` of the other.
closure() {
    apt_here apt-get -s -q install "$@" >list 2>log || fail "apt-get install $*:" "$(tail -n 5 log)"
    sed -n 's/^Inst \([^ ]*\) .*/\1/p' list
}

# Downloads the packages that the standard input names, and unpacks them into the folder $1. Links among its folders
# stay: packages still have files in /lib, which is /usr/lib.
unpack() {
    mkdir -p packages "$1/usr/lib" "$1/usr/bin" "$1/usr/sbin"
    for it in lib bin sbin; do
        [ -L "$1/$it" ] || ln -s "usr/$it" "$1/$it"
    done
    sort -u >names
    # shellcheck disable=SC2046
    (cd packages && apt_here apt-get -q download $(cat ../names)) >log 2>&1 ||
        fail "cannot download:" "$(tail -n 5 log)"
    for file in packages/*.deb; do
        dpkg-deb --fsys-tarfile "$file" | tar -x --keep-directory-symlink -C "$1" --exclude './usr/share/doc' \
            --exclude './usr/share/man' --exclude './usr/share/locale' || fail "cannot unpack $file"
    done
    rm -r packages
}

version_of() { apt_here apt-cache policy "$1" | sed -n 's/ *Candidate: //p'; }

# The package that $1 is another name for.
real_name() { apt_here apt-cache depends "$1:arm64" | sed -n "s/ *Depends: \($2[^ ]*\)/\1/p" | head -n 1; }

if [ ! -e tools.done ]; then
    ready_apt
    # The standard library is for one version of the compiler. Rebuilds of one have a suffix.
    [ "$(version_of rustc-web | sed 's/+b[0-9]*$//')" = \
        "$(version_of libstd-rust-web-dev:arm64 | sed 's/+b[0-9]*$//')" ] ||
        fail "rustc-web and libstd-rust-web-dev:arm64 are of different versions"
    rm -rf packages tools root system system.done
    closure rustc-web cargo-web "gcc-$triple" "g++-$triple" "gfortran-$triple" qemu-user-static gdb-multiarch |
        grep -v -x -E "$not_used" | unpack tools
    # What programs for the other machine need, and what tests load; and the standard library for rustc.
    {
        closure libc6:arm64 libgcc-s1:arm64 libstdc++6:arm64 libgomp1:arm64 libgfortran5:arm64 zlib1g:arm64 \
            libsqlite3-0:arm64 libssl3:arm64 | grep ':arm64$'
        echo libstd-rust-web-dev:arm64
        real_name libstd-rust-web-dev libstd-rust
    } | unpack root
    touch tools.done
fi

# Files of the toolchain that name where they would be installed; commands, which also are made anew, so that the
# folder can be moved.
tools=$folder/tools
cross=$tools/usr/$triple
libraries=$tools/usr/lib/x86_64-linux-gnu
ln -sfn "../../../../root/usr/lib/rustlib/$target" "$tools/usr/lib/rustlib/$target"
# libc.so is a script for the linker.
for script in "$cross/lib/"*.so; do
    ! head -c 40 "$script" | grep -q 'GNU ld script' || sed -i "s@ /usr/$triple/lib/@ @g" "$script"
done
# A root with the usual folders for the compilers. Its C library is the same as in root/, which has no headers.
sysroot=$tools/sysroot
mkdir -p "$sysroot/usr"
ln -sfn "$cross/include" "$sysroot/usr/include"
ln -sfn "$cross/lib" "$sysroot/usr/lib"
ln -sfn usr/lib "$sysroot/lib"

mkdir -p bin path
# Makes the command $1 of the lines $2.
command_of() {
    printf '#!/bin/sh\n# Made by tests/aarch64/setup.sh.\n%s\n' "$2" >"$1.new"
    chmod +x "$1.new"
    mv "$1.new" "$1"
}
# As that, for a program that was unpacked: with its libraries.
unpacked() { command_of "$1" "LD_LIBRARY_PATH=$libraries exec $2 \"\$@\""; }

release=$(find "$tools/usr/bin" -name "$triple-gcc-[0-9]*" | sed 's/.*-//')
# Where the compiler finds assembler and linkers by their plain names, those of the machine's own lld and mold, too.
linkers=$tools/linkers
mkdir -p "$linkers"
for tool in as ld ld.bfd ld.gold nm objcopy strip; do
    unpacked "$linkers/$tool" "$tools/usr/bin/$triple-$tool"
done
for tool in ld.lld ld.mold; do
    ! found=$(command -v "$tool") || ln -sfn "$found" "$linkers/$tool"
done
for language in gcc g++ gfortran; do
    unpacked "bin/$triple-$language" \
        "$tools/usr/bin/$triple-$language-$release -B$linkers/ --sysroot=$sysroot -L$cross/lib -L$folder/root/usr/lib/$triple"
    ln -sfn "../bin/$triple-$language" "path/$language"
done
ln -sfn gcc path/cc
for tool in addr2line ar as ld nm objcopy objdump readelf strings strip; do
    unpacked "bin/$triple-$tool" "$tools/usr/bin/$triple-$tool"
    ln -sfn "../bin/$triple-$tool" "path/$tool"
done
ln -sfn "$linkers/ld.gold" "$linkers/ld.lld" "$linkers/ld.mold" path/
for language in clang clang++; do
    ! found=$(command -v "$language") || command_of "path/$language" "exec $found --target=$triple \\
    --gcc-toolchain=$tools/usr --sysroot=$sysroot -B$linkers -L$cross/lib -L$folder/root/usr/lib/$triple -Wno-unused-command-line-argument \"\$@\""
done
! found=$(command -v go) || command_of path/go "CGO_ENABLED=1 GOARCH=arm64 CC=$folder/bin/$triple-gcc CXX=$folder/bin/$triple-g++ \\
    exec $found \"\$@\""
for tool in rustc rustdoc; do
    unpacked "bin/$tool" "$tools/usr/bin/$tool --sysroot $tools/usr"
done
unpacked bin/cargo "$tools/usr/bin/cargo"
command_of path/rustc "exec $folder/bin/rustc --target $target -Clinker=$folder/bin/$triple-gcc \"\$@\""
command_of bin/qemu-aarch64 "exec $tools/usr/bin/qemu-aarch64-static -L $folder/root \"\$@\""
command_of bin/gdb-multiarch "LD_LIBRARY_PATH=$libraries PYTHONHOME=$tools/usr exec $tools/usr/bin/gdb-multiarch \\
    --data-directory=$tools/usr/share/gdb -iex 'set sysroot $folder/root' -iex 'set remotetimeout 60' \"\$@\""
cat >env.new <<END
export PATH=$folder/bin:\$PATH
export CROSS_CC=$folder/bin/$triple-gcc CROSS_CXX=$folder/bin/$triple-g++
export QEMU=$folder/bin/qemu-aarch64 GDB=$folder/bin/gdb-multiarch
export RUSTC=$folder/bin/rustc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=\$CROSS_CC
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=\$QEMU
END
mv env.new env
for tool in bin/rustc bin/$triple-gcc bin/gdb-multiarch bin/qemu-aarch64; do
    "$tool" --version >log 2>&1 </dev/null || fail "$tool does not run:" "$(cat log)"
done

if [ $# != 0 ] && [ ! -e system.done ]; then
    ready_apt
    closure qemu-system-arm cpio | grep -v -x -E "$not_used" | unpack tools
    {
        closure gdb:arm64 gdbserver:arm64 strace:arm64 coreutils:arm64 bash:arm64 busybox-static:arm64 | grep ':arm64$'
        real_name linux-image-arm64 linux-image
    } | sed 's/^\(linux-image-[^:]*\)$/\1:arm64/' | unpack root
    touch system.done
fi
if [ -e system.done ]; then
    unpacked bin/cpio "$tools/usr/bin/cpio"
    unpacked bin/qemu-system-aarch64 "$tools/usr/bin/qemu-system-aarch64 -L $tools/usr/share/qemu"
fi
if [ "${1-}" = 16k ] && [ ! -e 16k.done ]; then
    ready_apt backports
    rm -rf 16k
    apt_here apt-cache depends linux-image-arm64-16k:arm64 |
        sed -n 's/ *Depends: \(linux-image[^:]*\).*/\1:arm64/p' | head -n 1 | unpack 16k
    touch 16k.done
fi
echo "$folder"
