#!/bin/sh
# Lints memdl without features, with each that others need, and with all; and loads without any, and without one. A
# feature brings those that it needs (`[features]` in Cargo.toml).
set -eu
cd "$(dirname "$0")/.."
for features in "" debug symbolize profile,zstd; do
    echo "features: ${features:-none}"
    cargo clippy --quiet --no-default-features --features "$features" --lib -- -D warnings
done
cargo test --no-default-features --no-fail-fast --test loader "$@" -- without:: loading::
cargo test --no-default-features --features profile --no-fail-fast --test loader "$@" -- without:: symbolize::
