#!/bin/sh
# Takes out of a static library what makes breakpoints land in memdl: debug information, and names of Rust. gdb's
# `break entry` means each function `...::entry` of a program, in every language.
#
#     sh tools/finish-archive.sh target/release/libmemdl.a
#
# Names of Rust get the prefix `memdl.`, with which no debugger demangles them. Those of the C API stay.
set -eu
archive=$1
names=$(mktemp)
trap 'rm -f "$names"' EXIT

# Without the bitcode, which makes nm ask a plug-in for the symbols.
objcopy --strip-debug --remove-section=.llvmbc --remove-section=.llvmcmd "$archive"
# nm says of each object file without symbols that it has none.
nm --format=posix "$archive" 2>/dev/null |
    awk '$1 ~ /^(_R|_ZN)/ { print $1, "memdl." $1 }' | LC_ALL=C sort -u >"$names"
objcopy --redefine-syms="$names" "$archive"
