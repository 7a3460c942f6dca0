#!/usr/bin/env bash
# Installs the Debian packages that the given sets lack (scripts/packages.sh); with none missing it touches
# neither the package lists nor the network.
#
#   scripts/setup.sh [build] [test] [kernel] [guest]      all of them without an argument
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/packages.sh
. "$top/scripts/packages.sh"

say() { printf 'setup: %s\n' "$*" >&2; }

case "${1:-}" in
  -h | --help) sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
esac
[ $# -gt 0 ] || set -- build test kernel guest

wanted=()
for name in "$@"; do
  case "$name" in
    build | test | kernel | guest) ;;
    *) say "there is no package set '$name'"; exit 2 ;;
  esac
  declare -n list="packages_$name"
  wanted+=("${list[@]}")
done

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  say "this is not a Debian system: make sure that what these packages hold is installed: ${wanted[*]}"
  exit 0
fi

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
missing=()
for package in "${wanted[@]}"; do
  installed "$package" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    say "these packages are missing, and there is neither root nor sudo to install them:"
    say "  apt-get install --no-install-recommends ${missing[*]}"
    exit 1
  fi
  as_root=(sudo)
fi
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q "$@"; }

say "installing ${#missing[@]} packages: ${missing[*]}"
# One source out of order must not stop the rest: what is really missing shows at the installation.
apt update || say "apt-get update had problems; trying to install all the same"
apt install -y --no-install-recommends "${missing[@]}"
