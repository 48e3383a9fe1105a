#!/bin/sh
# Runs the models. Building loom takes half a minute of processor time, the models some seconds.
set -eu
cd "$(dirname "$0")"
unset CARGO_ENCODED_RUSTFLAGS
RUSTFLAGS="--cfg loom" timeout --kill-after=5 900 \
    cargo test --quiet --target-dir ../../target/loom "$@"
