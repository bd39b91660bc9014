#!/bin/sh
# boot.sh ROOT MERGED WORK WHAT…: in a mount namespace of its own, MERGED is the read-only folder ROOT with a layer of
# WORK above it; there, nspawn of ROOT's own runs WHAT (options of systemd-nspawn, and what comes after them).
set -eu
root=$1 merged=$2 work=$3
shift 3
mkdir -p "$merged" "$work/upper" "$work/work"
mount -t overlay overlay -o "lowerdir=$root,upperdir=$work/upper,workdir=$work/work" "$merged"
mkdir -p /run/systemd/nspawn
mount -t tmpfs tmpfs /run/systemd/nspawn # it leaves something there
for libraries in "$root"/usr/lib/*-linux-gnu; do
    if [ -d "$libraries/systemd" ]; then break; fi
done
for loader in "$root"/lib64/ld-linux-*.so.2 "$root"/lib/ld-linux-*.so.1; do
    if [ -x "$loader" ]; then break; fi
done
for tree in /sys/fs/cgroup /sys/fs/cgroup/unified; do # or two of them would share their groups
    if [ -e "$tree/cgroup.procs" ]; then
        mkdir "$tree/${work##*/}-$$"
        echo $$ >"$tree/${work##*/}-$$/cgroup.procs"
    fi
done
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
exec "$loader" --library-path "$libraries/systemd:$libraries" "$root/usr/bin/systemd-nspawn" --quiet \
    --register=no --keep-unit --console=pipe --directory "$merged" "$@"
