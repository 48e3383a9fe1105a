#!/bin/sh
# Runs the tests of debuggers with each gdb that tests/debuggers.sh unpacks, and prints what passed.
#
#     sh tests/versions.sh [FILTER...]
#
# FILTER is a part of a test's name, as for `cargo test`. The table is Markdown; the output of each run is in
# target/debuggers/results. Fails if a test fails. It takes about five minutes for each version.
set -eu
cd "$(dirname "$0")/.."

results=${CARGO_TARGET_DIR:-target}/debuggers/results
rm -rf "$results"
mkdir -p "$results"
commands=$(sh tests/debuggers.sh bullseye/gdb bullseye/gdb-minimal bookworm/gdb bookworm/gdb-multiarch \
    trixie/gdb bookworm/gdb-17 sid/gdb)
cargo test -q --features capi --test debuggers --no-run

for command in $commands; do
    MEMDL_TEST_GDB=$command cargo test -q --features capi --test debuggers -- --format=pretty \
        parity sessions alone debug --skip lldb_ "$@" >"$results/${command##*/}" 2>&1 || true
done

# The rows have the order of the first version's tests, and the columns the names of the files. Scenarios of
# tests/debuggers/parity are counted; one has a row only if it fails with some version.
awk '
    FNR == 1 { version = FILENAME; sub(/.*\//, "", version); versions[++columns] = version }
    /^test .* \.\.\. (ok|FAILED)$/ {
        if (!($2 in seen)) { seen[$2] = 1; tests[++rows] = $2 }
        passed[$2, version] = $NF == "ok" ? "yes" : "**no**"
        if ($2 ~ /^parity::/) {
            count[version]++
            if ($NF == "ok") good[version]++; else fails[$2] = failed = 1
        }
    }
    END {
        line = "| Test |"; rule = "|---|"
        for (c = 1; c <= columns; c++) {
            name = versions[c]; sub(/^gdb-/, "", name)
            line = line " " name " |"; rule = rule "---|"
        }
        print line; print rule
        for (r = 1; r <= rows; r++) {
            name = tests[r]
            if (name ~ /^parity::/ && !(name in fails)) continue
            gsub(/_/, " ", name); line = "| " name " |"
            for (c = 1; c <= columns; c++) {
                cell = passed[tests[r], versions[c]]
                if (cell != "yes") failed = 1
                line = line " " (cell == "" ? "not run" : cell) " |"
            }
            print line
        }
        line = "| scenarios of `tests/debuggers/parity` that pass |"
        for (c = 1; c <= columns; c++) line = line " " (good[versions[c]] + 0) " of " (count[versions[c]] + 0) " |"
        print line
        exit (failed || rows == 0)
    }
' $(for command in $commands; do echo "$results/${command##*/}"; done) >"$results/table.md" || failed=1
cat "$results/table.md"
[ -z "${failed:-}" ]
