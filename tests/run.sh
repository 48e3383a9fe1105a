#!/bin/sh
# Installs what the tests need, and runs all tests.
set -eu
cd "$(dirname "$0")/.."
sh tests/setup.sh
cargo test --features capi,internals --no-fail-fast "$@"
# With this feature, memdl loads libraries whose static TLS is too large otherwise.
cargo test --features capi,large-static-tls --test loader "$@" -- tls::
# The loom models of data that is read without a lock.
sh tests/loom/run.sh
# The same tests, with the libraries loaded in the other ways (`AnyWay` in tests/common/mod.rs).
ways="loading:: lazy:: tls:: unload:: unwind:: services:: needed:: real_libraries:: real_programs::"
for way in buffer instance shared; do
    # shellcheck disable=SC2086
    MEMDL_TEST_WAY=$way cargo test --features capi,internals --test loader "$@" -- $ways
done
# More tests for the ways that debuggers see, with a few of the debugger tests (tests/ways.sh runs them all).
for way in buffer instance; do
    MEMDL_TEST_WAY=$way cargo test --features capi,internals --test loader "$@" -- api:: errors:: differential::
    MEMDL_TEST_WAY=$way cargo test --features capi,internals --test debuggers "$@" -- sessions dwarf5
done
# An instance at the addresses of an earlier one. The skipped tests count constructors.
# shellcheck disable=SC2086
MEMDL_TEST_WAY=again cargo test --features capi,internals --test loader "$@" -- $ways \
    --skip constructors_and_destructors --skip destructors_run_when_the_process_ends \
    --skip groups_go_in_reverse_order --skip nodelete_stays --skip what_is_left_goes_at_the_end
