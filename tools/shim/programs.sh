#!/bin/sh
# Runs programs twice, plainly and with everything that they open by `dlopen` loaded by memdl, and compares
# what they print and their exit codes:
#   sh tools/shim/programs.sh [--table] [PROGRAM...]
# A program is a script in tools/shim/programs, which runs in an empty folder; `build` is done first, plainly.
# Without arguments all of them run. It fails if one differs, or if memdl refused a library.
#   --install     first installs the packages that they need (as root, on Debian)
#   --table       the results as a table in Markdown
#   MEMDL_SHIM_LIBRARY   the preload library. Default: it is built, for release
set -eu
here=$(cd "$(dirname "$0")" && pwd)
table=
install=
while :; do
    case ${1:-} in
    --table) table=1 ;;
    --install) install=1 ;;
    *) break ;;
    esac
    shift
done
if [ $# = 0 ]; then
    # shellcheck disable=SC2046
    set -- $(cd "$here/programs" && ls -- *.sh | sed 's/\.sh$//')
fi
if [ -n "$install" ]; then
    packages=$(for name; do sed -n 's/^# Packages: //p' "$here/programs/$name.sh"; done)
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages
fi
library=${MEMDL_SHIM_LIBRARY:-}
if [ -z "$library" ]; then
    (cd "$here" && cargo build --release --quiet)
    library=$(cd "$here" && cargo metadata --format-version 1 --no-deps |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release/libmemdl_shim.so
fi
[ -f "$library" ] || { echo "programs.sh: no $library" >&2; exit 1; }

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# Users that a program changes to read and write there, too.
chmod 755 "$scratch"
# What programs print is to be the same each time.
export LC_ALL=C.UTF-8 PYTHONHASHSEED=0 PERL_HASH_SEED=0 TZ=UTC SOURCE_DATE_EPOCH=1000000000

# Runs a program in an empty folder: run PROGRAM HOW [VARIABLE=VALUE...]. Its output is in $scratch/HOW.*.
run() {
    program=$here/programs/$1.sh how=$2
    shift 2
    rm -rf "$scratch/run"
    cp -r "$scratch/built" "$scratch/run"
    code=0
    (cd "$scratch/run" && env "$@" timeout -s KILL "${MEMDL_SHIM_LIMIT:-180}" sh "$program" run) \
        >"$scratch/$how.stdout" 2>"$scratch/$how.stderr" </dev/null || code=$?
    echo "exit code $code" >"$scratch/$how.code"
    # Times of day and process ids, as logs have them.
    sed -i 's/[0-9][0-9]:[0-9][0-9]:[0-9][0-9]\.[0-9]*/TIME/g; s/:[0-9]\{2,\}):/:PID):/; s/\[[0-9]\{3,\}\]/[PID]/' \
        "$scratch/$how.stdout" "$scratch/$how.stderr"
}

[ -z "$table" ] || printf '| program | output and exit code | loaded by memdl | refused |\n|---|---|---|---|\n'
failed=0
for name; do
    rm -rf "$scratch/built"
    mkdir -m 777 "$scratch/built"
    (cd "$scratch/built" && sh "$here/programs/$name.sh" build) >"$scratch/build" 2>&1 || {
        echo "$name: cannot be built: $(tail -n 3 "$scratch/build")"
        failed=1
        continue
    }
    run "$name" plain
    log=$scratch/log
    : >"$log"
    chmod 666 "$log"
    run "$name" shim "LD_PRELOAD=$library" "MEMDL_SHIM_LOG=$log"
    same=equal
    for part in stdout stderr code; do
        cmp -s "$scratch/plain.$part" "$scratch/shim.$part" || same=different
    done
    [ -s "$scratch/plain.stdout" ] || same="no output"
    grep -q 'exit code 0' "$scratch/plain.code" || same="fails plainly"
    loaded=$(sed -n 's/^loaded //p' "$log" | sort -u | wc -l)
    refused=$(grep '^refused ' "$log" | sort -u || :)
    count=$(printf %s "$refused" | grep -c . || :)
    if [ -n "$table" ]; then
        echo "| $(sed -n '1s/^# \(.*\)\.$/\1/p' "$here/programs/$name.sh") | $same | $loaded | $count |"
    else
        echo "$name: output and exit code $same; memdl loaded $loaded libraries, refused $count"
    fi
    [ "$count" = 0 ] || printf '%s\n' "$refused" >&2
    [ "$same" = equal ] || {
        for part in stdout stderr code; do
            diff "$scratch/plain.$part" "$scratch/shim.$part" | head -n 20 >&2 || :
        done
    }
    [ "$same" = equal ] && [ "$count" = 0 ] && [ "$loaded" != 0 ] || failed=1
    [ -z "${MEMDL_SHIM_KEEP:-}" ] || { mkdir -p "$MEMDL_SHIM_KEEP" && cp -r "$scratch" "$MEMDL_SHIM_KEEP/$name"; }
done
exit $failed
