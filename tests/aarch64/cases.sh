#!/bin/sh
# Runs the collection of loader cases (tests/cases.sh), cross-compiled for AArch64, under qemu-user: with the system's
# `dlopen`, and with memdl as the loader in three ways.
#
#     sh tests/aarch64/cases.sh [CASES]
#
# What is changed for the machine, and what the reference does not pass, is in tests/aarch64/cases. No case is left out. CASES_ONLY=a,b runs some,
# CASES_WAYS="dlopen copy buffer instance" chooses among the ways.
set -eu
self=$(basename "$0")
cd "$(dirname "$0")/../.."
[ -n "${MEMDL_AARCH64_BESIDE:-}" ] || exec sh tests/aarch64/beside.sh sh "tests/aarch64/$self" "$@"
cases=${1:-../shared/cases}
if [ ! -d "$cases" ]; then
    echo "tests/aarch64/cases.sh: there is no folder $cases: nothing was tested"
    exit 0
fi
folder=$(sh tests/aarch64/setup.sh)
. "$folder/env"
# Not the one that looks for files in another root.
export QEMU="$folder/tools/usr/bin/qemu-aarch64-static"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cp -r "$cases/." "$work"
chmod -R u+w "$work"
cp -r tests/aarch64/cases/*/ "$work"
sed '/^#/d;/^$/d' tests/aarch64/cases/changes | while read -r case file expression; do
    sed "$expression" "$work/$case/$file" >"$work/changed"
    if cmp -s "$work/changed" "$work/$case/$file"; then
        echo "tests/aarch64/cases.sh: this changes nothing: $case $file $expression" >&2
        exit 1
    fi
    cat "$work/changed" >"$work/$case/$file"
done
export CASES_WAYS="${CASES_WAYS:-dlopen copy buffer instance}"
export MEMDL_TEST_TARGET=aarch64-unknown-linux-gnu MEMDL_TEST_RUNNER="$QEMU" MEMDL_TEST_PATH="$folder/path"
sh tests/cases.sh "$work" tests/aarch64/cases/expected-failures
