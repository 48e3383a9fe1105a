#!/bin/sh
# Installs what the tests need, then runs all of them.
set -eu
cd "$(dirname "$0")/.."
sh tests/setup.sh
cargo test --features capi,internals --no-fail-fast "$@"
# The feature makes room for what is refused without it.
cargo test --features capi,large-static-tls --test loader "$@" -- tls::
# Models of what is read without a lock.
sh tests/loom/run.sh
# The same libraries, loaded in the other ways (`AnyWay` in tests/common/mod.rs).
ways="loading:: lazy:: tls:: unload:: unwind:: services:: needed:: real_libraries:: real_programs::"
for way in buffer instance shared; do
    # shellcheck disable=SC2086
    MEMDL_TEST_WAY=$way cargo test --features capi,internals --test loader "$@" -- $ways
done
# What debuggers are told of, too; of debugging a little (`sh tests/ways.sh` has all).
for way in buffer instance; do
    MEMDL_TEST_WAY=$way cargo test --features capi,internals --test loader "$@" -- api:: errors:: differential::
    MEMDL_TEST_WAY=$way cargo test --features capi,internals --test debuggers "$@" -- sessions dwarf5
done
# An instance where another was before: without the tests that count constructors.
# shellcheck disable=SC2086
MEMDL_TEST_WAY=again cargo test --features capi,internals --test loader "$@" -- $ways \
    --skip constructors_and_destructors --skip destructors_run_when_the_process_ends \
    --skip groups_go_in_reverse_order --skip nodelete_stays --skip what_is_left_goes_at_the_end
