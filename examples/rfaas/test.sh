#!/bin/sh
# Builds the example, calls the function in both ways, and debugs it with gdb:
#
#     sh examples/rfaas/test.sh [measure]
#
# `measure` prints the table of README.md. Needs OpenCV's core, imgproc and imgcodecs, and gdb. memdl is found by
# pkg-config, or built and installed below target/.
set -eu
cd "$(dirname "$0")"
. ../common.sh
build_example rfaas
library=$build/libthumbnailer.so
picture=$build/picture.ppm

# A picture of 640 x 360.
awk 'BEGIN {
    printf "P3\n640 360\n255\n"
    for (y = 0; y < 360; y++) for (x = 0; x < 640; x++) print x % 256, y % 256, (x + y) % 256
}' > "$picture"

run() { timeout -s KILL 120 "$build/executor" "$@"; }
run memdl "$library" list > "$build/list.memdl"
run memfd "$library" list > "$build/list.memfd"
cmp "$build/list.memdl" "$build/list.memfd"
expect "$(cat "$build/list.memdl")" " thumbnailer"
expect "$(cat "$build/list.memdl")" " memcpy"
for way in memdl memfd; do
    expect "$(run $way "$library" call thumbnailer "$picture" "$build/$way.jpg")" " bytes"
done
cmp "$build/memdl.jpg" "$build/memfd.jpg"
expect "$(od -An -tx1 -N3 "$build/memdl.jpg")" "ff d8 ff"
refused=$(run memdl Makefile list 2>&1 || :)
expect "$refused" "executor: "
passed "both ways list the same functions and make the same picture"

make --silent BUILD="$build/unoptimized" CXXFLAGS="-O0 -g"
session=$(timeout -s KILL 180 gdb -nx -batch -ex 'set debuginfod enabled off' -ex 'set breakpoint pending on' \
    -ex 'break shrink' -ex run -ex 'bt' -ex 'info args' -ex finish -ex 'print thumbnail.rows' -ex kill \
    --args "$build/unoptimized/executor" memdl "$build/unoptimized/libthumbnailer.so" call thumbnailer "$picture" "$build/gdb.jpg" 2>&1)
expect "$session" ' shrink ('
expect "$session" 'side=200) at thumbnailer.cpp:'
expect "$session" 'side = 200'
expect "$session" 'in thumbnailer (input='
expect "$session" 'in main ('
expect "$session" '$1 = 200'
passed "gdb stops in the function, with its arguments, callers and variables"

[ "${1-}" = measure ] || exit 0
echo "The class: $(sed -n '/^class/,$p' functions.hpp | wc -l) lines and $(sed -n '/^class/,$p' memfd_functions.hpp | wc -l)"
for _ in 1 2 3 4 5; do
    for way in memdl memfd; do echo "$way: $(run $way "$library" time thumbnailer "$picture" 31)"; done
done
