#!/usr/bin/env bash
# Makes an initramfs from the static busybox: a plain (uncompressed) cpio archive, the same bytes each time, without
# root.
#
#   scripts/initramfs.sh [--script FILE | --shell] [--add SOURCE:NAME]... OUTPUT
#
#   --script FILE      /init runs this shell script in the guest, then powers off
#   --shell            /init gives a shell on the console, and powers off when it ends
#   --add SOURCE:NAME  puts one more file there
#
# Without --script and --shell, /init greets and powers off. BUSYBOX names another busybox.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf 'initramfs: %s\n' "$*" >&2; }

script='' shell=no added=() output=''
while [ $# -gt 0 ]; do
  case "$1" in
    --script) script=${2:?--script needs a file}; shift ;;
    --shell) shell=yes ;;
    --add) added+=("${2:?--add needs SOURCE:NAME}"); shift ;;
    -h | --help) sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    -*) say "unknown option '$1'"; exit 2 ;;
    *) output=$1 ;;
  esac
  shift
done
[ -n "$output" ] || { say "where to? give an output file"; exit 2; }

busybox=${BUSYBOX:-$(command -v busybox || true)}
if [ -z "$busybox" ] || [ ! -r "$busybox" ]; then
  say "there is no busybox: install the package busybox-static"
  exit 1
fi
# A program that asks for a dynamic linker, which stands in its first page, would leave the guest without an init.
if head -c 4096 "$busybox" | LC_ALL=C grep -q 'ld-linux'; then
  say "$busybox is dynamically linked: install the package busybox-static"
  exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# devtmpfs holds the devices from here on; the console in the archive is for the time before.
cat >"$work/init" <<'INIT'
#!/bin/sh
export PATH=/bin HOME=/ PS1='guest# '
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
INIT
if [ -n "$script" ]; then
  cp "$script" "$work/script"
  echo '/bin/sh /script' >>"$work/init"
elif [ "$shell" = yes ]; then
  # A session of its own with the console as its terminal: then Ctrl-C reaches the running command.
  echo 'setsid cttyhack sh' >>"$work/init"
else
  cat >>"$work/init" <<'INIT'
read -r up rest </proc/uptime
read -r label memory unit </proc/meminfo
echo
echo "Hello from user space: this is busybox on $(uname -sr)."
echo "This guest has $(grep -c ^processor /proc/cpuinfo) CPU(s) and $((memory / 1024)) MiB of memory; it came up in $up s. Goodbye."
INIT
fi
echo 'poweroff -f' >>"$work/init"

{
  for directory in bin dev etc proc root run sys tmp; do echo "dir /$directory 755"; done
  echo 'nod /dev/console 600 c 5 1'
  echo "file /bin/busybox $busybox 755"
  # The names that scripts and people use; "busybox NAME" runs the rest.
  for name in awk cat chmod cp cttyhack cut date dd df dmesg echo env false free grep halt head hexdump \
    hostname id ifconfig ip kill ln ls md5sum mkdir mknod mount mv nc nproc ping poweroff printf ps pwd \
    reboot rm rmdir sed seq setsid sh sha256sum sleep sort stat stty sync tail tee test timeout top touch \
    tr true tty udhcpc umount uname uptime vi wc wget which yes; do
    echo "slink /bin/$name busybox"
  done
  [ -z "$script" ] || echo "file /script $work/script 755"
  for pair in "${added[@]}"; do echo "file ${pair#*:} ${pair%%:*} 755"; done
  echo "file /init $work/init 755"
} >"$work/list"

mkdir -p "$(dirname "$output")"
"$top/scripts/newc.py" "$work/archive" <"$work/list"
# Kept when it is the same: what depends on its time is then not redone.
cmp -s "$work/archive" "$output" || mv "$work/archive" "$output"
