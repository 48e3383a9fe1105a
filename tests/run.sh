#!/bin/sh
# Installs what the tests need, then runs them: of debuggers and of the ways to load, what differs most.
# `sh tests/all.sh` runs the rest.
set -eu
cd "$(dirname "$0")/.."
sh tests/setup.sh
features="capi,internals"
# What counts instructions builds memdl once more: `cargo test --test house instructions::` is a command of its own.
cargo test --features $features --no-fail-fast --lib --test capi --test hostile --test house --test limits \
    --test loader --test profilers "$@" -- --skip instructions::
# The examples in the documentation, and the Rust in the documents.
cargo test --features $features --no-fail-fast --doc "$@"
# A host chooses what it takes of memdl: `tests/features.sh` has all choices.
cargo clippy --quiet --no-default-features --lib -- -D warnings
# The command line tool, and the builder of symfiles.
cargo test --no-fail-fast -p memdl-cli --features memdl/capi,memdl/internals "$@"
cargo test --no-fail-fast -p memdl-symfile "$@"
# The differential corpus takes a wheel.
cargo test -p corpus --features memdl/capi,memdl/internals "$@"
# A compiler, a level of optimisation and a form of debug information each of what is most used; all that
# depends on neither.
cargo test --features $features --no-fail-fast --test debuggers "$@" -- \
    gcc_o2_dwarf4 clang_o2_dwarf5 rustc_o0 harness:: debug:: ide:: split types
# The same libraries, loaded in other ways (`AnyWay` in tests/common/mod.rs).
for way in buffer instance; do
    MEMDL_TEST_WAY=$way cargo test --features $features --test loader "$@" -- \
        loading:: files:: tls:: needed:: namespaces:: unwind::
done
