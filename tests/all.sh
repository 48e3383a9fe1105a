#!/bin/sh
# Runs what tests/run.sh leaves out: all scenarios of debuggers, all ways to load, models and other forms. It
# takes about an hour on two processors. `sh tests/ways.sh` has more still.
set -eu
cd "$(dirname "$0")/.."
features="capi,internals"
# Each choice of features.
sh tests/features.sh "$@"
# The example of an executor: its protocol, its isolation, and a debugger on it.
cargo test --no-fail-fast -p memdl-executor "$@"
cargo test --features $features --no-fail-fast --test debuggers "$@"
# The feature makes room for what is refused without it.
cargo test --features capi,large-static-tls --test loader "$@" -- tls::
# Models of what is read without a lock.
sh tests/loom/run.sh
ways="loading:: files:: filters:: lazy:: tls:: unload:: reload:: unwind:: services:: dlinfo:: needed:: namespaces:: real_libraries:: real_programs::"
for way in buffer instance shared; do
    # shellcheck disable=SC2086
    MEMDL_TEST_WAY=$way cargo test --features $features --test loader "$@" -- $ways
done
# What debuggers see, too; of debugging a little (`sh tests/ways.sh` has all).
for way in buffer instance; do
    MEMDL_TEST_WAY=$way cargo test --features $features --test loader "$@" -- api:: errors:: differential::
    MEMDL_TEST_WAY=$way cargo test --features $features --test debuggers "$@" -- sessions dwarf5
done
# An instance where another was before: without the tests that count constructors.
# shellcheck disable=SC2086
MEMDL_TEST_WAY=again cargo test --features $features --test loader "$@" -- $ways \
    --skip constructors_and_destructors --skip destructors_run_when_the_process_ends \
    --skip groups_go_in_reverse_order --skip nodelete_stays --skip what_is_left_goes_at_the_end
MEMDL_TEST_FORM=wrapped cargo test --features $features --test debuggers "$@" -- \
    parity clang_o2 gcc_o2_dwarf5 types dwarf2 dwarf3 rustc gfortran go_o0 sources_are_listed
for way in buffer shared; do MEMDL_TEST_WAY=$way sh tests/cases.sh; done
cargo run --release --quiet --example from_memory
