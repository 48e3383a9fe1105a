#!/bin/sh
# Builds the example and debugs it with gdb: sh examples/cranelift/test.sh
set -eu
cd "$(dirname "$0")"
cargo build --quiet
session=$(timeout -s KILL 120 gdb -nx -batch -ex 'set debuginfod enabled off' -ex 'set breakpoint pending on' \
    -ex 'break squares.toy:5' -ex run -ex 'bt 2' -ex 'info args' -ex 'info locals' -ex continue -ex 'info locals' \
    -ex 'break sum_of_squares' -ex 'delete 1' -ex next -ex 'info line' -ex continue \
    --args target/debug/cranelift-example 5 2>&1)
expect() {
    case $session in
    *"$1"*) ;;
    *)
        printf '%s\n\nno: %s\n' "$session" "$1" >&2
        exit 1
        ;;
    esac
}
expect 'Breakpoint 1, sum_of_squares (n=5) at '
expect '        sum = sum + i * i'
expect '#0  sum_of_squares (n=5) at '
expect '#1  '
expect 'cranelift_example::main'
expect 'sum = 0'
expect 'i = 1'
expect 'sum = 1'
expect 'i = 2'
expect 'sum_of_squares(5) = 55'
expect 'exited normally'
echo 'test result: ok: gdb sees the function that Cranelift compiled'
