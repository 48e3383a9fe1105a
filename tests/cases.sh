#!/bin/sh
# Runs a collection of loader test cases, kept outside this repository, with memdl as the loader.
#
#   sh tests/cases.sh [CASES [EXPECTED_FAILURES]]
#
# CASES is the folder of the collection (default: ../shared/cases next to this repository); it is
# copied, not written to. EXPECTED_FAILURES lists cases that fail for now, one a line, `#` starts a
# comment (default: tests/cases.expected-failures, if it exists). `dlopen:CASE` fails in that way only.
#
# Fails if a case that is not listed fails or is skipped, and if a listed one passes, so that the list
# stays correct. If CASES does not exist, nothing runs, and that is no failure.
#
# Environment: CARGO, CARGO_TARGET_DIR as for cargo; CASES_ONLY=a,b runs some; CASES_RUNS=n repeats;
# MEMDL_TEST_WAY=copy|buffer|instance|shared is how the backend loads; CASES_WAYS lists several of these, and `dlopen`,
# which is the system's own loader. For another machine (tests/aarch64/cases.sh): MEMDL_TEST_TARGET is what cargo
# builds for, MEMDL_TEST_PATH a folder with that machine's compilers, MEMDL_TEST_RUNNER the command that runs its programs.
set -eu
repository=$(cd "$(dirname "$0")/.." && pwd)
cases=${1:-$repository/../shared/cases}
expected=${2:-}
if [ -z "$expected" ] && [ -f "$repository/tests/cases.expected-failures" ]; then
    expected=$repository/tests/cases.expected-failures
fi
if [ ! -d "$cases" ]; then
    echo "tests/cases.sh: there is no folder $cases: nothing was tested"
    exit 0
fi
for tool in python3 gcc g++ readelf; do
    command -v "$tool" >/dev/null || { echo "tests/cases.sh: no $tool: run sh tests/setup.sh" >&2; exit 1; }
done

ways=${CASES_WAYS:-${MEMDL_TEST_WAY:-copy}}
machine=${MEMDL_TEST_TARGET:-}
backend=
if [ "$ways" != dlopen ]; then
    (cd "$repository" && "${CARGO:-cargo}" build --quiet --release -p case-backend ${machine:+--target "$machine"})
    target=${CARGO_TARGET_DIR:-$repository/target}
    backend=$(cd "$repository" && cd "$target" && pwd)/${machine:+$machine/}release/libcase_backend.so
fi
PATH=${MEMDL_TEST_PATH:+$MEMDL_TEST_PATH:}$PATH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cp -r "$cases/." "$work"
chmod -R u+w "$work"
# A copy, since another build may replace the backend meanwhile.
[ -z "$backend" ] || cp "$backend" "$work/libcase_backend.so"
sh "$work/runner/build.sh" 2>"$work/runner.log" || { cat "$work/runner.log" >&2; exit 1; }
if [ -n "${MEMDL_TEST_RUNNER:-}" ]; then
    for program in "$work"/runner/runner_c "$work"/runner/runner_cxx "$work"/runner/runner_nopie; do
        mv "$program" "$program.program"
        printf '#!/bin/sh\nexec %s %s "$@"\n' "$MEMDL_TEST_RUNNER" "$program.program" >"$program"
        chmod +x "$program"
    done
fi

# Runs all cases with the loader $way once.
run_all() {
    backend=$work/libcase_backend.so
    [ "$way" != dlopen ] || backend=dlopen
    rm -f "$work/results.json"
    MEMDL_TEST_WAY="$way" python3 "$work/run_cases.py" "$backend" -v --json "$work/results.json" \
        ${CASES_ONLY:+--only "$CASES_ONLY"}
    python3 - "$work/results.json" "${expected:-/dev/null}" "${CASES_ONLY:-}" "$way" <<'PYTHON'
import json, sys

results = json.load(open(sys.argv[1]))
lines = (line.split("#")[0].strip() for line in open(sys.argv[2]))
# As `case`, or `way:case`.
way = sys.argv[4]
expected = {line.removeprefix(f"{way}:") for line in lines if line}
expected = {line for line in expected if ":" not in line}
only = {name for name in sys.argv[3].split(",") if name}
# These two ask for an executable stack, which a loader may refuse to grant.
may_refuse = {"execstack", "no_gnu_stack"}


def good(name, state):
    return state == "pass" or state == "refused" and name in may_refuse


failures = []
for name, (state, text) in results.items():
    if good(name, state) and name in expected:
        failures.append(f"{name}: is listed as failing, but passes: take it off the list")
    elif not good(name, state) and name not in expected:
        failures.append(f"{name}: {state} {text}")
for name in sorted(expected - results.keys()):
    if not only or name in only:
        failures.append(f"{name}: is listed as failing, but there is no such case")
failures += [f"{name}: there is no such case" for name in sorted(only - results.keys())]
if not results:
    failures.append("no case was run")

passed = sum(good(name, state) for name, (state, _) in results.items())
listed = sum(name in expected for name in results)
print(f"{way}: {passed} of {len(results)} cases are good, {listed} are listed as failing for now")
for failure in failures:
    print(f"FAILED {failure}")
sys.exit(bool(failures))
PYTHON
}

bad=
run=1
while [ "$run" -le "${CASES_RUNS:-1}" ]; do
    for way in $ways; do
        run_all || bad=yes
    done
    run=$((run + 1))
done
[ -z "$bad" ]
