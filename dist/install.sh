#!/bin/sh
# Builds memdl for C and C++, and installs it like any C library.
#
#     sh dist/install.sh --prefix=/usr/local
#
#     --prefix=DIR      where it will be used (/usr/local)
#     --libdir=DIR      where libraries go, absolute or below the prefix (lib)
#     --destdir=DIR     is put before all paths, for packagers
#     --profile=NAME    cargo's profile (release)
#     --debug-info      keeps memdl's own debug information
#
# Installs libmemdl.so.0 with its links, libmemdl.a, memdl.h and memdl.hpp, memdl.pc for pkg-config, a package of
# CMake's, and man pages. CARGO, CC and CARGO_TARGET_DIR are respected. Needs no network if cargo needs none.
set -eu
prefix=/usr/local libdir=lib destdir= profile=release debug_info=
for option; do
    case $option in
    --prefix=*) prefix=${option#*=} ;;
    --libdir=*) libdir=${option#*=} ;;
    --destdir=*) destdir=${option#*=} ;;
    --profile=*) profile=${option#*=} ;;
    --debug-info) debug_info=yes ;;
    --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" && exit ;;
    *) echo "dist/install.sh: unknown option $option; see --help" >&2 && exit 2 ;;
    esac
done
case $prefix in
/*) ;;
*) echo "dist/install.sh: --prefix must be absolute" >&2 && exit 2 ;;
esac
case $libdir in
/*) ;;
*) libdir=$prefix/$libdir ;;
esac
case $libdir/ in
"$prefix"/*) ;;
*) echo "dist/install.sh: --libdir must be below the prefix" >&2 && exit 2 ;;
esac

cd "$(dirname "$0")/.."
cc=${CC:-cc}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
major=${version%%.*}
minor=${version#*.}
minor=${minor%%.*}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# cargo says where the archive is, and in which folder the build script has put the pair of symbols for debuggers.
"${CARGO:-cargo}" rustc --quiet --lib --features capi --crate-type staticlib --profile "$profile" \
    --message-format=json-render-diagnostics >"$work/messages"
archive=$(sed -n 's/.*"filenames":\["\([^"]*libmemdl\.a\)".*/\1/p' "$work/messages" | tail -n 1)
pair=$(sed -n '/"reason":"build-script-executed"/s/.*memdl.*"out_dir":"\([^"]*\)".*/\1/p' "$work/messages" |
    while read -r folder; do ls "$folder"/libmemdl_pair_exported.a 2>/dev/null || :; done | tail -n 1)
[ -f "$archive" ] && [ -f "$pair" ] || {
    echo "dist/install.sh: cargo has not built libmemdl.a" >&2
    exit 1
}
cp "$archive" "$work/libmemdl.a"
[ -n "$debug_info" ] || sh tools/finish-archive.sh "$work/libmemdl.a"

# What a program that is linked with the archive needs besides: `rustc --print native-static-libs`.
private="-lgcc_s -lutil -lrt -lpthread -lm -ldl -lc"
functions=$(nm -g --defined-only --format=posix "$work/libmemdl.a" 2>/dev/null |
    awk '$1 ~ /^memdl_/ && $2 == "T" { printf " -Wl,-u,%s", $1 }')
# shellcheck disable=SC2086
"$cc" -shared -o "$work/libmemdl.so" -Wl,-soname,"libmemdl.so.$major" -Wl,--version-script=dist/memdl.map \
    -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -Wl,--gc-sections -Wl,--build-id \
    $functions -Wl,-u,__jit_debug_descriptor "$pair" "$work/libmemdl.a" $private
# Where a library has a symbol table, gdb looks for the pair there, so one that has the functions for its prompt needs both.
[ -n "$debug_info" ] || strip --strip-unneeded -w -K 'memdl_debug_*' -K '__jit_debug_*' "$work/libmemdl.so"

# From the library's folder to the prefix.
to_prefix=$(echo "${libdir#"$prefix"/}" | sed 's,[^/][^/]*,..,g')
filled() {
    sed -e "s|@PREFIX@|$prefix|g" -e "s|@LIBDIR@|$libdir|g" -e "s|@VERSION@|$version|g" \
        -e "s|@MAJOR@|$major|g" -e "s|@MINOR@|$minor|g" -e "s|@PRIVATE@|$private|g" \
        -e "s|@TO_PREFIX@|$to_prefix|g" "$1"
}
lib=$destdir$libdir
include=$destdir$prefix/include
man=$destdir$prefix/share/man/man3
install -d "$lib/pkgconfig" "$lib/cmake/memdl" "$include" "$man"
install -m 755 "$work/libmemdl.so" "$lib/libmemdl.so.$version"
ln -sf "libmemdl.so.$version" "$lib/libmemdl.so.$major"
ln -sf "libmemdl.so.$major" "$lib/libmemdl.so"
install -m 644 "$work/libmemdl.a" "$lib/libmemdl.a"
install -m 644 include/memdl.h include/memdl.hpp "$include"
filled dist/memdl.pc.in >"$lib/pkgconfig/memdl.pc"
filled dist/memdl-config.cmake.in >"$lib/cmake/memdl/memdl-config.cmake"
filled dist/memdl-config-version.cmake.in >"$lib/cmake/memdl/memdl-config-version.cmake"
awk -v folder="$man" -v version="$version" -f dist/man.awk include/memdl.h
echo "memdl $version is in $destdir$prefix"
