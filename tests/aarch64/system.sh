#!/bin/sh
# Runs a command on an AArch64 machine with a kernel of its own, which qemu-system emulates:
#
#     sh tests/aarch64/system.sh COMMAND [ARGUMENT...]
#
# The machine has the repository at the same path, in which the command starts, and the root of
# tests/aarch64/setup.sh: gdb, the C library, busybox. Compilers are the host's (tests/aarch64/tools.py). The machine is
# off when the command ends. Prints what the command prints, and exits with its status.
#
# Environment: MEMDL_AARCH64_SECONDS is the limit in time (600); MEMDL_AARCH64_CPU names what is emulated (`max,pauth-impdef=on`: all
# that qemu knows; `cortex-a72` has no BTI, PAC or SVE); MEMDL_AARCH64_PAGES=16k takes a kernel whose pages have 16 KiB.
set -eu
cd "$(dirname "$0")/../.."
repository=$PWD
pages=${MEMDL_AARCH64_PAGES:-}
folder=$(sh tests/aarch64/setup.sh "${pages:-system}")
kernel=$(ls "$folder/${pages:-root}"/boot/vmlinuz-*)
modules=$folder/${pages:-root}/lib/modules
job=$(mktemp -d)
emulator=
tools=
# `timeout` takes the emulator with it.
trap '[ -z "$emulator" ] || kill "$emulator" || :; [ -z "$tools" ] || kill "$tools" || :; rm -rf "$job"' EXIT
trap 'exit 1' HUP INT TERM

quote() { printf %s "$1" | sed "s/'/'\\\\''/g; s/^/'/; s/\$/'/"; }
{
    echo "cd $(quote "$repository") || exit"
    echo "ulimit -c unlimited"
    printf exec
    for word in "$@"; do
        printf ' %s' "$(quote "$word")"
    done
    echo
} >"$job/command"
# Where target/ is a link to elsewhere.
target=$(cd "${CARGO_TARGET_DIR:-target}" && pwd -P)
case $target in "$repository"/*) target= ;; esac
printf 'repository=%s\ntarget=%s\ntime=%s\n' "$(quote "$repository")" "$(quote "$target")" "$(date +%s)" \
    >"$job/environment"

mkdir "$job/requests"
ls "$folder/path" >"$job/tools"
python3 tests/aarch64/tools.py "$job/requests" "$folder/path" &
tools=$!

# What the kernel starts with: busybox, the modules for shared folders in their order, and `init`.
start=$job/start
mkdir -p "$start/bin" "$start/modules"
cp "$folder/root/usr/bin/busybox" "$start/bin"
cp tests/aarch64/init tests/aarch64/tool "$start"
chmod +x "$start/init" "$start/tool"
for module in virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci netfs fscache 9pnet 9pnet_virtio 9p; do
    # Some kernels have some of them built in, or compressed.
    find "$modules" -name "$module.ko*" -exec cp {} "$start/modules" \;
    [ ! -e "$start/modules/$module.ko.xz" ] || xz -d "$start/modules/$module.ko.xz"
    [ ! -e "$start/modules/$module.ko" ] || echo "$module.ko"
done >"$job/order"
mv "$job/order" "$start/modules"
(cd "$start" && find . | "$folder/bin/cpio" --quiet -o -H newc) >"$job/initrd"

share() { # NAME FOLDER
    set -- "$1" "$(echo "$2" | sed 's/,/,,/g')"
    echo "-fsdev local,id=$1,path=$2,security_model=none -device virtio-9p-pci,fsdev=$1,mount_tag=$1"
}
: >"$job/console"
# shellcheck disable=SC2046
timeout -k 1 "${MEMDL_AARCH64_SECONDS:-600}" "$folder/bin/qemu-system-aarch64" -M virt \
    -cpu "${MEMDL_AARCH64_CPU:-max,pauth-impdef=on}" -smp 2 -m 2048 -kernel "$kernel" -initrd "$job/initrd" \
    -append 'console=ttyAMA0 quiet loglevel=1 panic=-1 rdinit=/init' -nographic -no-reboot -net none \
    $(share job "$job") $(share usr "$folder/root/usr") $(share repository "$repository") \
    ${target:+$(share target "$target")} </dev/null >"$job/console" 2>&1 &
emulator=$!
tail -f --pid="$emulator" "$job/console" | sed 's|\r||;/reboot: Power down/d' &
printer=$!
wait "$emulator" || echo "tests/aarch64/system.sh: the emulator ended with $?" >&2
emulator=
wait "$printer"
exit "$(cat "$job/status" 2>/dev/null || echo 1)"
