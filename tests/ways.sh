#!/bin/sh
# All that is tried with debuggers, of libraries that were received into a buffer, and of instances:
# some twenty minutes. (The ways to load: `AnyWay` in tests/common/mod.rs. Those that debuggers are not
# told of are tried by tests/run.sh.)
set -eu
cd "$(dirname "$0")/.."
for way in buffer instance; do
    MEMDL_TEST_WAY=$way cargo test --features capi --test debuggers "$@" -- --skip host_builds::
done
