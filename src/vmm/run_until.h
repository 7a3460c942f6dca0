// What a program can wait for while a guest runs: Vm::run_until().
//
// The guest stops right there: at the instruction behind the byte that completes a text, behind the
// exit that is waited for, or in front of the instruction at an address. It is paused then, and may
// be run on.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include "memory/address.h"
#include "vmm/stop_reason.h"

namespace vmm {

namespace debug {
class Symbols;
}

// The guest has sent this text on COM1, all of it since the call began.
struct UntilConsole {
  std::string text = {};
};

// A line on COM1 matches this regular expression (ECMAScript without back references), anywhere in
// it. A line that has not ended yet counts, so that prompts are found; of a long line only the last
// 1024 bytes are looked at.
struct UntilConsoleMatches {
  std::string pattern = {};
};

// A CPU is about to execute the instruction at this linear address. Takes a debug register, of
// which there are four; where kernel code is interpreted (`vmm doctor`), user code cannot be waited
// for.
struct UntilAddress {
  Gva address;
};

// The same by guest-physical address, in whatever address space the CPU is. The first byte of the
// instruction is INT3 meanwhile, which the guest could read. Not in real mode.
struct UntilPhysicalAddress {
  Gpa address;
};

// The same by name, of debug/symbols.h; how far a Linux kernel was moved (KASLR) is found when the
// call begins.
struct UntilSymbol {
  std::string name = {};
  std::shared_ptr<const debug::Symbols> symbols = {};
};

// An exit of this kind ("pio", "mmio", "hlt", "msr", ...: VmStats::exits has the names) has been
// handled; for "pio" and "mmio" at this port or address, when one is given.
struct UntilExit {
  std::string kind = {};
  std::optional<std::uint64_t> address = {};
};

// So many exits of all CPUs have been handled since the call began: at least 1. Exits that are only
// the library's own (a kick) do not count.
struct UntilExitCount {
  std::uint64_t count = 1;
};

// The program finds that it is so. Called on the thread of run_until(), with the guest paused, when
// the call begins, then every `interval`, and when the guest has stopped for another reason: it may
// look at memory and registers.
struct UntilTrue {
  std::function<bool()> predicate = {};
  std::chrono::milliseconds interval{10};
};

using Condition =
    std::variant<UntilConsole, UntilConsoleMatches, UntilAddress, UntilPhysicalAddress, UntilSymbol,
                 UntilExit, UntilExitCount, UntilTrue>;

// How a run_until() ended.
struct UntilResult {
  // Which condition was met, by its place in the list; nothing when the guest stopped before.
  std::optional<std::size_t> met = {};
  // kCondition when one was met; else why the guest stopped, kDeadline included. When a predicate
  // is met after the guest has stopped for good, this is why it did.
  StopInfo stop = {};
  // What COM1 sent during the call: the last 64 KiB of it.
  std::string console = {};

  explicit operator bool() const noexcept { return met.has_value(); }
};

}  // namespace vmm
