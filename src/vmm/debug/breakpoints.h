// A debugger's breakpoints and watchpoints, and the bytes that it has planted in guest memory.
//
// A software breakpoint is INT3 over the first byte of an instruction, by guest-physical address:
// whoever executes it, in whatever address space, has hit it. Where the page is not mapped yet it
// is an execution breakpoint in a debug register instead.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "memory/guest_memory.h"
#include "vmm/debug/target.h"
#include "vmm/debug/watched_memory.h"
#include "vmm/kvm/vcpu_fd.h"

namespace vmm::debug {

inline constexpr std::byte kInt3{0xcc};

// Bytes of guest memory with INT3 over them. Any thread.
class PlantedBytes {
 public:
  // Puts INT3 there, once more or for the first time. Errors: no RAM.
  Result<void> plant(const GuestMemory& memory, Gpa at);
  // Takes one away; the guest's byte comes back with the last.
  void remove(const GuestMemory& memory, Gpa at);
  void remove_all(const GuestMemory& memory);
  // The guest's own bytes come back until renew() is called. The CPUs are at rest.
  void lift(const GuestMemory& memory) const;
  // Plants again what the guest has written over since; how many that were.
  unsigned renew(const GuestMemory& memory);

  bool contains(Gpa at) const;
  bool empty() const;
  // Puts the guest's own bytes into what was read from `from` on.
  void hide(Gpa from, std::span<std::byte> bytes) const;
  // The guest's memory is written to from `to` on: what lies under INT3 is kept, and INT3 stays.
  Result<void> write(const GuestMemory& memory, Gpa to, std::span<const std::byte> bytes);

 private:
  struct Byte {
    std::byte guests{};
    unsigned uses = 0;
  };
  // INT3 goes there, and what was there is the guest's; mutex_ held.
  static Result<bool> cover(const GuestMemory& memory, Gpa at, Byte& byte);

  mutable std::mutex mutex_;
  std::map<Gpa, Byte> bytes_;
};

// The list. Not thread-safe.
class Breakpoints {
 public:
  struct Entry {
    Breakpoint point;
    std::optional<Gpa> planted = {};
    std::vector<WatchedRange> guarded = {};  // where pages are guarded for it
    std::vector<StopCondition> conditions = {};
    // Else debug registers are.
    bool in_registers() const noexcept { return !planted && guarded.empty(); }
  };

  const Entry* find(const Breakpoint& point) const;
  void add(Entry entry) { entries_.push_back(std::move(entry)); }
  // False when it is not on the list.
  bool set_conditions(const Breakpoint& point, std::vector<StopCondition> conditions);
  // What is taken off the list.
  std::optional<Entry> take(const Breakpoint& point);
  std::vector<Entry> take_all() { return std::exchange(entries_, {}); }
  const std::vector<Entry>& entries() const noexcept { return entries_; }
  bool empty() const noexcept { return entries_.empty(); }
  // What debug registers have to hold, and how many that are for one point.
  std::vector<kvm::DebugSlot> slots() const;

 private:
  std::vector<Entry> entries_;
};

// The naturally aligned pieces of a range that debug registers can watch.
std::vector<kvm::DebugSlot> watch_slots(const Breakpoint& point);

}  // namespace vmm::debug
