#!/bin/sh
# Runs all debugger tests with libraries that were received into a buffer, and with instances of a template.
# It takes about twenty minutes. (`AnyWay` in tests/common/mod.rs lists the ways to load; tests/run.sh runs
# the other tests with each.)
set -eu
cd "$(dirname "$0")/.."
for way in buffer instance; do
    MEMDL_TEST_WAY=$way cargo test --features capi --test debuggers "$@" -- --skip host_builds::
done
