#!/bin/sh
# Installs what the tests need, then runs all of them.
set -eu
cd "$(dirname "$0")/.."
sh tests/setup.sh
cargo test --features capi "$@"
# The feature makes room for what is refused without it.
cargo test --features capi,large-static-tls --test tls "$@"
# The same libraries, loaded in the other ways (`AnyWay` in tests/common/mod.rs).
for way in buffer instance shared; do
    MEMDL_TEST_WAY=$way cargo test --features capi --test loading --test lazy --test tls --test unload \
        --test unwind --test services --test needed --test real_libraries --test real_programs "$@"
done
