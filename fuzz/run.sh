#!/bin/sh
# Fuzzes one target: `sh fuzz/run.sh TARGET MINUTES [libFuzzer's options]`. Minutes are those of the clock.
# Minimises its corpus: `sh fuzz/run.sh --merge TARGET`.
#
# The corpus grows in fuzz/work/TARGET, from the seeds and from what is kept in fuzz/corpus/TARGET.tar.zst.
# A finding is in fuzz/artifacts/TARGET, its stack in fuzz/work/TARGET.log, and so is, at the end, how
# much was done.
set -eu
cd "$(dirname "$0")"
merge=
if [ "$1" = --merge ]; then
    merge=1 minutes=0
    shift
    target=$1
else
    target=$1 minutes=$2
    shift
fi
shift
work=work/$target kept=work/kept/$target
mkdir -p "$work" "artifacts/$target" "$kept"
[ ! -f "corpus/$target.tar.zst" ] || tar --zstd -xf "corpus/$target.tar.zst" -C "$kept"
[ -d work/seeds ] || sh seeds.sh work/seeds
# cargo-fuzz knows the flags, which need a nightly compiler or this.
export RUSTC_BOOTSTRAP=1
cargo fuzz build --fuzz-dir . --sanitizer address "$target"
program=target/x86_64-unknown-linux-gnu/release/$target
limits="-timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=256 -max_len=65536"
if [ -n "$merge" ]; then
    rm -rf work/small work/least
    mkdir work/small work/least
    # Large ones reach little that small ones do not, and take the test's time.
    find "$work" "$kept" "work/seeds/$target" -type f -size -33 -exec cp {} work/small \;
    # By the code that is reached, not how often: the smallest inputs first.
    # shellcheck disable=SC2086
    nice -n 19 "$program" $limits -use_counters=0 -merge=1 work/least work/small \
        >>"work/$target.log" 2>&1
    find "$kept" -name 'found-*' -exec cp {} work/least \;
    pack="tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -c"
    (cd work/least && $pack -- *) | zstd -q -19 -f -o "corpus/$target.tar.zst"
    ls -l "corpus/$target.tar.zst"
    exit
fi
# shellcheck disable=SC2086
exec nice -n 19 "$program" $limits -max_total_time=$((minutes * 60)) -print_final_stats=1 \
    -artifact_prefix="artifacts/$target/" "$@" \
    "$work" "$kept" "work/seeds/$target" >>"work/$target.log" 2>&1
