#!/bin/sh
# Installs what the tests need, then runs all of them.
set -eu
cd "$(dirname "$0")/.."
sh tests/setup.sh
cargo test --features capi "$@"
