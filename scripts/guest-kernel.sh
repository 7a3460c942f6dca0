#!/usr/bin/env bash
# Builds a small Linux kernel for guests from Debian's package linux-source-6.1.
#
#   scripts/guest-kernel.sh [--tiny|--debug] [OUTPUT_DIR]
#
# The result is OUTPUT_DIR/bzImage, vmlinux and System.map beside it (default build/guest-kernel, with --tiny
# build/guest-kernel-tiny). With --debug (build/guest-kernel-debug) vmlinux has debug information,
# OUTPUT_DIR/vmlinux-gdb.py gives gdb the kernel's own commands, and crc4.ko is a module to load. A kernel
# that was built from the same configuration and the same source package is kept; nothing is rebuilt then.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

variant=guest-kernel
case "${1:-}" in
  --tiny) variant=guest-kernel-tiny; shift ;;
  --debug) variant=guest-kernel-debug; shift ;;
  -h | --help) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
esac
out=${1:-$top/build/$variant}
configs=("$top/tests/integration/$variant.config")
# It is the kernel that all tests boot, and what debuggers want on top.
[ "$variant" != guest-kernel-debug ] || configs=("$top/tests/integration/guest-kernel.config" "${configs[@]}")
source=/usr/src/linux-source-6.1.tar.xz

say() { printf 'guest-kernel: %s\n' "$*" >&2; }

if [ ! -r "$source" ]; then
  say "$source is missing: install the package linux-source-6.1"
  exit 1
fi

recipe=3 # raise it when the steps below change what they build
stamp=$({ cat "${configs[@]}"; echo "$recipe"; stat -Lc '%s %Y' "$source"; } | sha256sum | cut -d' ' -f1)
if [ -f "$out/bzImage" ] && [ "$(cat "$out/stamp" 2>/dev/null)" = "$stamp" ]; then
  say "$out/bzImage is up to date"
  exit 0
fi

mkdir -p "$out"
work=$(mktemp -d "$out/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
say "unpacking $source"
tar -C "$work" --strip-components=1 -xf "$source"
say "building the $variant configuration on $(nproc) processors (a few minutes)"
export KBUILD_BUILD_TIMESTAMP='1970-01-01' KBUILD_BUILD_USER=vmm KBUILD_BUILD_HOST=vmm
{
  make -C "$work" ARCH=x86_64 tinyconfig
  (cd "$work" && ARCH=x86_64 scripts/kconfig/merge_config.sh -m .config "${configs[@]}")
  make -C "$work" ARCH=x86_64 olddefconfig
  make -C "$work" ARCH=x86_64 -j"$(nproc)" bzImage
  [ "$variant" != guest-kernel-debug ] || make -C "$work" ARCH=x86_64 -j"$(nproc)" scripts_gdb modules
} >"$out/build.log" 2>&1 || {
  say "the build failed; the end of $out/build.log:"
  tail -n 30 "$out/build.log" >&2
  exit 1
}
for config in "${configs[@]}"; do
  "$top/scripts/kernel-config-diff.py" "$config" "$work/.config" | while IFS= read -r line; do
    say "warning: $line"
  done
done
install -m 644 "$work/arch/x86/boot/bzImage" "$out/bzImage.new"
install -m 644 "$work/vmlinux" "$out/vmlinux"
install -m 644 "$work/System.map" "$out/System.map"
install -m 644 "$work/.config" "$out/config"
if [ "$variant" = guest-kernel-debug ]; then
  install -m 644 "$work/lib/crc4.ko" "$out/crc4.ko"
  # The script looks for its modules beside itself, under scripts/gdb.
  mkdir -p "$out/scripts/gdb/linux"
  install -m 644 "$work"/scripts/gdb/linux/*.py "$out/scripts/gdb/linux/"
  install -m 644 "$work/scripts/gdb/vmlinux-gdb.py" "$out/vmlinux-gdb.py"
fi
mv "$out/bzImage.new" "$out/bzImage"
printf '%s\n' "$stamp" >"$out/stamp"
say "built $out/bzImage"
