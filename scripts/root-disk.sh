#!/usr/bin/env bash
# Makes a disk image with a small Debian on an ext4 file system: the essential packages, bash and
# coreutils among them, and those for file systems.
# Needs the network, or Debian's mirror as apt is configured for it, and the packages mmdebstrap and e2fsprogs.
#
#   scripts/root-disk.sh [OUTPUT]
#
# OUTPUT is build/root-disk/root.ext4 by default; what is there already is kept.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf 'root-disk: %s\n' "$*" >&2; }

case "${1:-}" in
  -h | --help) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
  -*) say "there is no option $1: --help says what there is"; exit 2 ;;
esac
output=${1:-$top/build/root-disk/root.ext4}
[ ! -e "$output" ] || exit 0

export PATH=$PATH:/usr/sbin:/sbin
for tool in mmdebstrap:mmdebstrap mke2fs:e2fsprogs; do
  command -v "${tool%%:*}" >/dev/null || { say "there is no ${tool%%:*}: install the package ${tool#*:}"; exit 1; }
done

mkdir -p "$(dirname "$output")"
work=$(mktemp -d "$(dirname "$output")/work.XXXXXXXX")
trap 'rm -rf "$work"' EXIT

suite=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
# What nobody reads in a test stays out.
mmdebstrap --quiet --variant=essential --include=e2fsprogs,mount \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/i18n/*' \
  "${suite:-bookworm}" "$work/root.tar" >&2
mkdir "$work/root"
tar -C "$work/root" --exclude='./dev/*' -xf "$work/root.tar"
mke2fs -q -t ext4 -d "$work/root" "$work/root.ext4" 400M
mv "$work/root.ext4" "$output"
