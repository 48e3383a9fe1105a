#!/bin/sh
# Installs what the tests need, then runs all of them.
set -eu
cd "$(dirname "$0")/.."
sh tests/setup.sh
cargo test --features capi "$@"
# The feature makes room for what is refused without it.
cargo test --features capi,large-static-tls --test tls "$@"
