#!/bin/sh
# Installs what the tests need, then runs all of them.
set -eu
cd "$(dirname "$0")/.."
sh tests/setup.sh
cargo test --features capi,internals --no-fail-fast "$@"
# The feature makes room for what is refused without it.
cargo test --features capi,large-static-tls --test tls "$@"
# Models of what is read without a lock.
sh tests/loom/run.sh
# The same libraries, loaded in the other ways (`AnyWay` in tests/common/mod.rs).
for way in buffer instance shared; do
    MEMDL_TEST_WAY=$way cargo test --features capi,internals --test loading --test lazy --test tls --test unload \
        --test unwind --test services --test needed --test real_libraries --test real_programs "$@"
done
# What debuggers are told of, too; of debugging a little (`sh tests/ways.sh` has all).
for way in buffer instance; do
    MEMDL_TEST_WAY=$way cargo test --features capi,internals --test api --test errors --test differential "$@"
    MEMDL_TEST_WAY=$way cargo test --features capi,internals --test debug --test lldb "$@" -- dwarf5
done
# An instance where another was before: without the tests that count constructors.
MEMDL_TEST_WAY=again cargo test --features capi,internals --test loading --test lazy --test tls --test unload \
    --test unwind --test services --test needed --test real_libraries --test real_programs "$@" -- \
    --skip constructors_and_destructors --skip destructors_run_when_the_process_ends \
    --skip groups_go_in_reverse_order --skip nodelete_stays --skip what_is_left_goes_at_the_end
