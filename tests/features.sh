#!/bin/sh
# Lints memdl with each choice of features that differs from the others, and loads without any. A feature brings those
# that it needs (`[features]` in Cargo.toml), so these are all.
set -eu
cd "$(dirname "$0")/.."
for features in "" debug zstd symbolize symbolize,zstd profile profile,zstd; do
    echo "features: ${features:-none}"
    cargo clippy --quiet --no-default-features --features "$features" --lib -- -D warnings
done
cargo test --no-default-features --no-fail-fast --test loader "$@" -- without:: loading::
