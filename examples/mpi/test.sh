#!/bin/sh
# Builds the example, runs it with four ranks, and looks at the files that they open:
#
#     sh examples/mpi/test.sh [measure]
#
# `measure` then times both ways in turns with a rank for each processor, in a local folder and in one shared by sshfs.
# Needs Open MPI, strace, root for a network namespace of its own (mpirun listens on all addresses), and to measure sshfs and
# vde2. memdl is found by pkg-config if MEMDL_PREFIX says where it is, or built and installed below target/.
set -eu
cd "$(dirname "$0")"
. ../common.sh
build_example mpi

# Runs mpirun with some ranks where nobody else is on the network.
ranks() {
    unshare -n sh -c 'ip link set lo up && exec timeout -s KILL 120 "$@"' sh \
        mpirun --allow-run-as-root --oversubscribe -n "$@"
}

# Numbers of processes and jobs, in hexadecimal too, differ from run to run.
without_numbers() { sed 's/[0-9a-f.]*[0-9][0-9a-f.]*/N/g' | sort -u; }
# The files that a rank has opened.
opened() { sed -n 's/.*open\(at\)\{0,1\}(.*"\([^"]*\)".*/\2/p' "$build/trace.$1.$2" | without_numbers; }
library=$(echo "$build/libensemble.so" | without_numbers)

for way in broadcast file; do
    rm -f "$build"/trace.$way.*
    output=$(ranks 4 sh -c 'exec strace -f -e trace=open,openat,memfd_create -o "$0.$OMPI_COMM_WORLD_RANK" "$@"' \
        "$build/trace.$way" "$build/host" $way "$build/libensemble.so")
    expect "$output" "$way: 4 ranks, loaded in"
    expect "$output" "pi is 3.141592654"
done
for rank in 0 1 2 3; do
    opened broadcast $rank > "$build/opened.broadcast"
    opened file $rank > "$build/opened.file"
    ! grep -q memfd_create "$build/trace.broadcast.$rank" || fail "rank $rank has made a memfd"
    more=$(comm -23 "$build/opened.broadcast" "$build/opened.file")
    less=$(comm -13 "$build/opened.broadcast" "$build/opened.file")
    case $rank in
    0) [ "$more$less" = "" ] || fail "rank 0 opens other files: $more, not $less" ;;
    *) [ "$more" = "" ] && [ "$less" = "$library" ] || fail "rank $rank opens $more, not $less" ;;
    esac
done
passed "ranks 1 to 3 open no file that they do not open without the library"

[ "${1-}" = measure ] || exit 0
shared=$(mktemp -d)
mkdir -p "$build/store"
cp "$build/libensemble.so" "$build/store"
dpipe /usr/lib/openssh/sftp-server = sshfs -f -o passive,dir_cache=no ":$build/store" "$shared" &
server=$!
trap 'kill $server; wait $server 2> /dev/null || :; rmdir "$shared"' EXIT
timeout -s KILL 20 sh -c 'until [ -f "$0/libensemble.so" ]; do sleep 0.1; done' "$shared" || fail "sshfs does not start"
for folder in "$build/store" "$shared"; do
    rm -f "$build/times".*
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
        for way in broadcast file; do
            ranks "$(nproc)" "$build/host" $way "$folder/libensemble.so" | sed 's/.*loaded in \([0-9]*\) us.*/\1/' >> "$build/times.$way"
        done
    done
    for way in broadcast file; do
        echo "$folder, $way: median $(sort -n "$build/times.$way" | sed -n 8p) us of 15"
    done
done
