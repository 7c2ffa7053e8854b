#!/usr/bin/env bash
# build-image.sh PROGRAM IMAGE [CONTEXT]: makes a Docker image of one program and the shared libraries that `ldd` names,
# nothing else. Needs no registry, no base image and no network. Does nothing if the image is already of this program.
#
#   deploy/examples/build-image.sh target/release/examples/thermometer skep/thermometer:demo
set -euo pipefail

[ $# -eq 2 ] || { sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 64; }
program=$1 image=$2
[ -x "$program" ] || { echo "build-image: no program at $program: build it first (cargo build --release -p skep-edge --example thermometer)" >&2; exit 1; }

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
name=$(basename "$program")

install -D -m 0755 "$program" "$root/$name"
strip "$root/$name" 2>/dev/null || true
# `ldd` prints "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)" and, for the loader, "/lib64/ld-linux-x86-64.so.2 (0x…)".
# A static program has none, and then ldd fails.
libraries=$(ldd "$program" 2>/dev/null | sed -nE 's#^.*[[:space:]](/[^ ]+) \(0x[0-9a-f]+\)$#\1#p' || true)
for library in $libraries; do
    install -D -m 0755 "$library" "$root$library"
done
# The tar is the same for the same files, so its checksum says whether the image is up to date.
archive() { tar --create --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --directory "$root" .; }
sum=$(archive | sha256sum | cut -d' ' -f1)

old=$(docker image inspect --format '{{.Id}} {{index .Config.Labels "skep.content"}}' "$image" 2>/dev/null || true)
if [ "${old#* }" = "$sum" ]; then
    echo "image $image is up to date"
    exit 0
fi
# Not root in the container, and no shell: there is nothing but the program.
archive | docker import \
    --change "ENTRYPOINT [\"/$name\"]" --change 'USER 65534:65534' --change "LABEL skep.content=$sum" \
    --message "skep: $name" - "$image" >/dev/null
[ -z "$old" ] || docker image rm "${old%% *}" >/dev/null 2>&1 || true
echo "image $image made: $name and $(wc -w <<<"$libraries") libraries, $(archive | wc -c | numfmt --to=iec)"
