#!/usr/bin/env bash
# Shows what this project does, from a fresh clone: installs what is needed, builds, runs the guest that is built in, then boots
# a real Linux kernel to a shell that greets and powers off.
#
#   scripts/demo.sh [--stock|--small] [--shell]
#
#   --stock   Debian's own kernel, from the package linux-image-cloud-amd64: the default
#   --small   a small kernel that is built from Debian's source first, once
#   --shell   end in a shell inside the guest instead of a greeting ("exit" powers off)
#
# The package is downloaded and unpacked under build/, not installed. The exit status is 0 when everything went well.
set -uo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$top" || exit 1

stock=yes shell=no
for argument in "$@"; do
  case "$argument" in
    --stock) stock=yes ;;
    --small) stock=no ;;
    --shell) shell=yes ;;
    -h | --help) sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) echo "demo: unknown argument '$argument'" >&2; exit 2 ;;
  esac
done

started=$SECONDS
say() { printf '\n== %d:%02d %s\n' $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)) "$*"; }
note() { printf '   %s\n' "$@"; }
die() { printf '\ndemo: FAILED: %s\n' "$*" >&2; exit 1; }
trap 'printf "\ndemo: interrupted\n" >&2; exit 130' INT

# Passes its input on line by line, and shows that time passes while none comes: on a terminal a counter
# in place, elsewhere a line now and then.
follow() {
  local line part='' began=$SECONDS quiet=0 counter=no
  while :; do
    if IFS= read -r -t 1 line; then
      [ "$counter" = no ] || printf '\r\033[K'
      printf '   | %s\n' "$part${line%$'\r'}"
      part='' quiet=0 counter=no
    elif [ $? -gt 128 ]; then
      part+=$line
      quiet=$((quiet + 1))
      if [ -t 1 ]; then
        printf '\r\033[K   ... %d s' $((SECONDS - began))
        counter=yes
      elif [ $((quiet % 15)) = 0 ]; then
        printf '   ... %d s\n' $((SECONDS - began))
      fi
    else
      [ "$counter" = no ] || printf '\r\033[K'
      [ -z "$part$line" ] || printf '   | %s\n' "$part$line"
      return 0
    fi
  done
}

# quietly LOG COMMAND...: shows only the last line of its output while it runs, and the end of it when it fails.
quietly() {
  local log=$1
  shift
  mkdir -p "$(dirname "$log")"
  if [ -t 1 ]; then
    "$@" 2>&1 | tee "$log" | while IFS= read -r line; do printf '\r\033[K   %.100s' "$line"; done
    local status=${PIPESTATUS[0]}
    printf '\r\033[K'
  else
    "$@" >"$log" 2>&1
    local status=$?
  fi
  [ "$status" = 0 ] || { tail -n 20 "$log" >&2; }
  return "$status"
}

say "1. What is needed"
note "Debian packages: compilers and libraries to build with, busybox for the guest (scripts/packages.sh)."
scripts/setup.sh build guest || die "the packages could not be installed"
note "All there."

say "2. Build"
note "An optimized build in build/demo; the log is build/demo.log."
if [ ! -f build/demo/build.ninja ]; then
  quietly build/demo.log meson setup build/demo -Dbuildtype=release -Dwerror=false -Dtests=false -Dbench=false ||
    die "the build could not be configured"
fi
quietly build/demo.log ninja -C build/demo || die "the build failed"
vmm=$top/build/demo/src/cli/vmm
note "Built $("$vmm" --version)."

say "3. What this host's KVM can do"
"$vmm" doctor | sed 's/^/   /'
[ "${PIPESTATUS[0]}" = 0 ] || die "this host has no usable /dev/kvm: no machine can run here"
interpreted=no
if "$vmm" doctor --json | grep -q '"software_kvm": *true'; then interpreted=yes; fi

say "4. The guest that is built in"
note "It is part of the program: it prints what it finds and offers a prompt, at which we say \"off\"."
"$vmm" run --cmdline off </dev/null 2>&1 | follow
[ "${PIPESTATUS[0]}" = 0 ] || die "the built-in guest did not power off"

say "5. A file system for Linux"
note "The static busybox and a script called /init, as an initramfs."
initramfs=$top/build/demo-greeting.cpio
options=()
if [ "$shell" = yes ]; then
  initramfs=$top/build/demo-shell.cpio
  options=(--shell)
fi
scripts/initramfs.sh "${options[@]}" "$initramfs" || die "the initramfs could not be made"
note "$(du -h "$initramfs" | cut -f1) in $initramfs."

# Downloads Debian's kernel and leaves its image in build/stock-kernel/vmlinuz; keeps one that is there.
fetch_stock_kernel() {
  local out=$top/build/stock-kernel package
  [ ! -f "$out/vmlinuz" ] || return 0
  mkdir -p "$out"
  command -v apt-get >/dev/null || { note "this is not a Debian system: there is no apt-get"; return 1; }
  local root=()
  [ "$(id -u)" -eq 0 ] || root=(sudo)
  real_package() { apt-cache depends "$1" 2>/dev/null | sed -n 's/^ *Depends: *\(linux-image-[0-9].*\)$/\1/p' | head -n 1; }
  package=$(real_package linux-image-cloud-amd64)
  if [ -z "$package" ]; then
    "${root[@]}" apt-get -q update || true
    package=$(real_package linux-image-cloud-amd64)
  fi
  [ -n "$package" ] || { note "the package linux-image-cloud-amd64 is not known here"; return 1; }
  note "Downloading $package ..."
  (
    cd "$out" && rm -f ./*.deb
    # As root, apt would like to download as its own user, who may not write here.
    apt-get -q -o APT::Sandbox::User=root download "$package" ||
      { "${root[@]}" apt-get -q update && apt-get -q -o APT::Sandbox::User=root download "$package"; }
    dpkg-deb -x ./*.deb unpacked && cp unpacked/boot/vmlinuz-* vmlinuz.new && rm -rf unpacked ./*.deb &&
      mv vmlinuz.new vmlinuz
  )
}

say "6. A Linux kernel"
# As generous as a first look may be: what takes longer has gone wrong.
memory=512M limit=600 options_for_kernel=()
if [ "$stock" = yes ]; then
  note "Debian's own kernel, unchanged, from the package linux-image-cloud-amd64."
  fetch_stock_kernel || die "Debian's kernel could not be fetched (--small builds one from source)"
  kernel=$top/build/stock-kernel/vmlinuz
  if [ "$interpreted" = yes ]; then
    note "This host's KVM interprets the guest's kernel code; vmm executes it itself instead, which is slower than a"
    note "processor. So the kernel's self-tests of cryptography are left out (cryptomgr.notests)."
    options_for_kernel=(--cmdline cryptomgr.notests)
    memory=256M
  fi
else
  note "A small one, from Debian's source: two to three minutes, once."
  scripts/setup.sh build kernel || die "the packages could not be installed"
  quietly build/guest-kernel-tiny.log scripts/guest-kernel.sh --tiny || die "the kernel could not be built"
  kernel=$top/build/guest-kernel-tiny/bzImage
  memory=96M
fi
"$vmm" inspect "$kernel" | sed 's/^/   /'

say "7. Linux, to user space"
command=("$vmm" run --kernel "$kernel" --initrd "$initramfs" --mem "$memory" "${options_for_kernel[@]}")
note "$(printf '%q ' "${command[@]/#$top\//}")"
if [ "$interpreted" = yes ] && [ "$stock" = yes ]; then
  note "Half a minute here; seconds where the processor executes it."
fi
if [ "$shell" = yes ]; then
  "${command[@]}"
  status=$?
else
  timeout --foreground "$limit" "${command[@]}" </dev/null 2>&1 | tee build/demo-console.log | follow
  status=${PIPESTATUS[0]}
  [ "$status" != 124 ] || die "the guest was still running after $limit seconds"
  [ "$status" != 0 ] || grep -q '^Hello from user space' build/demo-console.log ||
    die "the guest powered off without a greeting"
fi
[ "$status" = 0 ] || die "vmm run ended with status $status"

say "Done: the guest reached its user space and powered off. scripts/test.sh runs all tests."
