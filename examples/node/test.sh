#!/bin/sh
# Builds the example, and runs three addons of npm from memory and from their files:
#
#     sh examples/node/test.sh [measure]
#
# `measure` then prints how long each way takes. Needs Node 20 with its headers, npm (better-sqlite3 is compiled for some
# minutes once), strace and gdb. memdl is found by pkg-config, or built and installed below target/.
set -eu
cd "$(dirname "$0")"
. ../common.sh
build_example node
export MEMDL_NODE="$build/memdl.node"

for folder in disk memory; do
    mkdir -p "$build/$folder"
    cp package.json app.js index.js pack.js "$build/$folder"
done
[ -e "$build/installed" ] || {
    (cd "$build/disk" && npm install --no-audit --no-fund > ../npm.log 2>&1) || fail "see $build/npm.log"
    touch "$build/installed"
}
rm -rf "$build/memory/node_modules"
cp -r "$build/disk/node_modules" "$build/memory"
node pack.js "$build/memory/node_modules" "$build/pack"

disk=$(timeout -s KILL 120 node "$build/disk/app.js" 2> "$build/disk.err") || fail "$(cat "$build/disk.err")"
memory=$(timeout -s KILL 120 strace -f -e trace=open,openat,memfd_create -o "$build/trace" \
    node "$build/memory/app.js" "$build/pack" 2> "$build/memory.err") || fail "$(cat "$build/memory.err")"
expect "$memory" '"sum":5050,"verified":true,"width":64,"height":48,"format":"png","inWorker":{"sum":5050,"verified":true}'
[ "$disk" = "$memory" ] || fail "from files: $disk; from memory: $memory"
opened=$(sed -n 's/.*open\(at\)\{0,1\}(.*"\([^"]*node_modules[^"]*\.\(node\|so[.0-9]*\)\)".*/\2/p' "$build/trace")
[ "$opened" = "" ] || fail "files were opened: $opened"
! grep -q 'memfd_create\|O_CREAT.*\.\(node\|so\)' "$build/trace" || fail "a file was made: $build/trace"
passed "better-sqlite3, sharp and a Rust addon run from memory, in a worker too, and no file is made"

refused=$(node -e 'require("./index.js").load("none", fs.readFileSync(process.argv[1]))' "$build/pack" 2>&1 || :)
expect "$refused" "ERR_DLOPEN_FAILED"
refused=$(node -e 'require("./index.js").load("none", fs.readFileSync(process.argv[1]))' \
    "$(pkg-config --variable=libdir memdl)/libmemdl.so" 2>&1 || :)
expect "$refused" "none is no addon"
passed "what is no addon is an error that says so"

session=$(timeout -s KILL 180 gdb -nx -batch -ex 'set debuginfod enabled off' -ex 'set breakpoint pending on' \
    -ex 'break sqlite3_step' -ex run -ex 'bt 12' -ex kill --args node "$build/memory/app.js" "$build/pack" 2>&1)
expect "$session" 'sqlite3_step ('
expect "$session" ' in Database::JS_exec('
passed "gdb sees the frames of an addon"

[ "${1-}" = measure ] || exit 0
rm -f "$build"/times.*
time_of() { sed -n 's/took \(.*\) ms/\1/p' "$build/err" >> "$build/times.$1"; }
for _ in 1 2 3 4 5 6 7 8 9; do
    node "$build/disk/app.js" > "$build/out" 2> "$build/err" && time_of 'files of node_modules'
    node "$build/memory/app.js" "$build/pack" extract > "$build/out" 2> "$build/err" && time_of 'a pack, temporary files'
    node "$build/memory/app.js" "$build/pack" > "$build/out" 2> "$build/err" && time_of 'a pack, memdl'
done
for times in "$build"/times.*; do echo "${times##*/times.}: median $(sort -n "$times" | sed -n 5p) ms of 9"; done
