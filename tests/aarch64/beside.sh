#!/bin/sh
# Runs a command where the libraries of an AArch64 machine are at their usual paths, beside this machine's own: in a
# mount namespace of its own, so that nothing else sees them. qemu-user itself leads only some system calls to another
# root, and `stat` not.
#
#     sh tests/aarch64/beside.sh COMMAND [ARGUMENT...]
set -eu
folder=$(sh "$(dirname "$0")/setup.sh")
links=$folder/beside
mkdir -p "$links"
for it in aarch64-linux-gnu ld-linux-aarch64.so.1; do
    ln -sfn "$folder/root/usr/lib/$it" "$links/$it"
done
user=
[ "$(id -u)" = 0 ] || user=--map-root-user
export MEMDL_AARCH64_BESIDE="$folder"
# shellcheck disable=SC2016,SC2086
exec unshare --mount $user sh -c 'mount -t overlay overlay -o "lowerdir=$1:/usr/lib" /usr/lib; shift; exec "$@"' \
    sh "$links" "$@"
