#!/usr/bin/env bash
# Installs what is needed, builds everything and runs every test: the style rules, the unit tests, tests that run small
# guests in KVM, tests that boot Linux.
#
#   scripts/test.sh [--all]
#
#   --all     then more Linux boots, the tests again under sanitizers, and the library with a second compiler
#
# Everything it builds stays under build/, so that a second run is faster. The last line of the output is
# "N passed, N failed, N skipped"; the exit status is not 0 when anything failed. Where /dev/kvm can be opened, a
# test that was skipped for want of KVM counts as failed.
set -uo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$top" || exit 1

all=no
for argument in "$@"; do
  case "$argument" in
    --all) all=yes ;;
    -h | --help) sed -n '2,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) echo "test: unknown argument '$argument'" >&2; exit 2 ;;
  esac
done

started=$SECONDS
say() { printf '\n== %d:%02d %s\n' $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)) "$*"; }

summary=()   # arguments for test-summary.py
# Runs a step that passes or fails as a whole, and remembers how it went.
step() {
  local name=$1
  shift
  say "$name"
  if "$@"; then
    summary+=(--passed "$name")
  else
    summary+=(--failed "$name")
    return 1
  fi
}
# configure DIRECTORY OPTION...: sets up a build directory, or keeps one that has these options already.
configure() {
  local directory=$1
  shift
  if [ -f "$directory/build.ninja" ]; then
    meson configure "$directory" "$@" >/dev/null && return 0
    rm -rf "$directory"
  fi
  meson setup "$directory" "$@"
}
# run_tests DIRECTORY LOG OPTION...: runs tests and hands their log to the summary, which counts the cases.
run_tests() {
  local directory=$1 log=$2
  shift 2
  summary+=("$directory/meson-logs/$log.json")
  rm -f "$directory/meson-logs/$log.json"
  meson test -C "$directory" --logbase "$log" --print-errorlogs "$@"
}

# build_suite DIRECTORY SUITE: builds the programs of one suite's tests and nothing else.
build_suite() {
  meson introspect --tests "$1" | python3 -c '
import json, os, sys
root = os.path.realpath(sys.argv[1])
for test in json.load(sys.stdin):
    if any(suite.endswith(":" + sys.argv[2]) for suite in test["suite"]):
        print(os.path.relpath(test["cmd"][0], root))
' "$1" "$2" | sort -u | xargs ninja -C "$1"
}

finish() {
  say "the result after $(((SECONDS - started) / 60)) minutes"
  "$top/scripts/test-summary.py" "${summary[@]}"
  exit $?
}

step "install what is missing" scripts/setup.sh || finish

# Optimized as users get it; without debug information, which takes a fifth of the time to make and more to link.
step "configure" configure build/test -Dbuildtype=debugoptimized -Ddebug=false -Ddefault_library=both || finish
step "build" ninja -C build/test || finish

say "tests without a Linux guest"
# A test that waits gives up by itself and says for what; the limit on the whole is for hangs.
run_tests build/test test --no-rebuild --no-suite linux --no-suite linux-more -t 4

if step "the kernel that the tests boot" scripts/guest-kernel.sh build/guest-kernel; then
  export GUEST_KERNEL=$top/build/guest-kernel/bzImage
fi
say "tests that boot Linux"
run_tests build/test linux --no-rebuild --suite linux

if [ "$all" = yes ]; then
  if step "a kernel with debug information" scripts/guest-kernel.sh --debug build/guest-kernel-debug; then
    export GUEST_KERNEL_DEBUG=$top/build/guest-kernel-debug/bzImage
  fi
  say "more tests that boot Linux"
  run_tests build/test linux-more --no-rebuild --suite linux-more

  # Sanitized code runs many times slower: the tests that need no guest, and small guests.
  if step "configure with AddressSanitizer and UndefinedBehaviorSanitizer" \
      configure build/asan -Dbuildtype=debug -Doptimization=1 -Db_sanitize=address,undefined \
        -Dbench=false; then
    say "tests under AddressSanitizer and UndefinedBehaviorSanitizer"
    export ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1
    export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
    run_tests build/asan asan --suite unit --suite hostile --suite fuzz --suite kvm -t 5
  fi

  if step "configure with ThreadSanitizer" \
      configure build/tsan -Dbuildtype=debug -Doptimization=1 -Db_sanitize=thread -Dbench=false &&
      step "build the tests of threads" build_suite build/tsan threads; then
    say "tests of threads under ThreadSanitizer"
    # ThreadSanitizer of g++ 12 cannot live with the widest address randomisation of newer kernels.
    fixed_addresses=()
    setarch -R true 2>/dev/null && fixed_addresses=(--wrapper "setarch -R")
    run_tests build/tsan tsan --no-rebuild --suite threads -t 10 "${fixed_addresses[@]}"
  fi

  clang_build() {
    CC=clang CXX=clang++ configure build/clang -Dtests=false -Dbench=false && ninja -C build/clang
  }
  step "the library with clang" clang_build
fi
finish
