// Operands: registers of any width, and memory through the TLB.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include "vmm/interpreter/cpu.h"
#include "vmm/interpreter/insn.h"

namespace vmm::interpreter {

template <class T>
T get(const Cpu& cpu, std::uint8_t offset) noexcept {
  T value;
  std::memcpy(&value, reinterpret_cast<const char*>(cpu.file.data()) + offset, sizeof value);
  return value;
}

// A 32-bit result is zero-extended (SDM volume 1, 3.4.1.1).
template <class T>
void put(Cpu& cpu, std::uint8_t offset, T value) noexcept {
  using Stored = std::conditional_t<sizeof(T) == 4, std::uint64_t, T>;
  const Stored stored = value;
  std::memcpy(reinterpret_cast<char*>(cpu.file.data()) + offset, &stored, sizeof stored);
}

// Guest memory in place: other CPUs and devices change it meanwhile, so each access is one of the
// processor's, neither torn nor repeated.
template <class T>
using Shared [[gnu::may_alias, gnu::aligned(1)]] = volatile T;

template <class T>
T load_at(const std::byte* at) noexcept {
  return *reinterpret_cast<const Shared<T>*>(at);
}
template <class T>
void store_at(std::byte* at, T value) noexcept {
  *reinterpret_cast<Shared<T>*>(at) = value;
}

// Ends an instruction whose operand could not be accessed.
inline Next missed(Cpu& cpu) noexcept { return cpu.leave(cpu.tlb.last_miss()); }

// False: the instruction ends as missed().
template <class T>
bool load(Cpu& cpu, std::uint64_t address, T& value) noexcept {
  if (const std::byte* const at = cpu.tlb.read(address, sizeof(T))) [[likely]] {
    value = load_at<T>(at);
    return true;
  }
  if (!Tlb::crosses(address, sizeof(T)) && !cpu.tlb.last_miss().guarded) return false;
  return cpu.tlb.copy_in(address, std::as_writable_bytes(std::span(&value, 1)));
}

// For an instruction that does nothing else in memory: the same, also from a device, whose answer
// is there when it is executed again. False: it ends as missed_device().
template <class T>
bool load_any(Cpu& cpu, std::uint64_t address, T& value) noexcept {
  return load(cpu, address, value) || cpu.take_answer(value);
}
inline Next missed_device(Cpu& cpu, std::uint64_t address, std::uint8_t size) noexcept {
  const Tlb::Miss& miss = cpu.tlb.last_miss();
  if (!miss.device || Tlb::crosses(address, size)) return missed(cpu);
  return cpu.leave(
      DeviceAccess{.to = DeviceAccess::To::kMemory, .size = size, .address = miss.gpa.value});
}

// A store that hits a page table (table_stores.cc), two pages, or memory that is guarded.
bool store_slow(Cpu& cpu, std::uint64_t address, std::span<const std::byte> bytes) noexcept;

template <class T>
bool store(Cpu& cpu, std::uint64_t address, T value) noexcept {
  if (std::byte* const at = cpu.tlb.write(address, sizeof(T))) [[likely]] {
    store_at<T>(at, value);
    return true;
  }
  return store_slow(cpu, address, std::as_bytes(std::span(&value, 1)));
}

// A store that an instruction ends with, to memory or a device.
template <class T>
Next store_any(Cpu& cpu, std::uint64_t address, T value) noexcept {
  if (store(cpu, address, value)) [[likely]]
    return Next::kOn;
  const Tlb::Miss& miss = cpu.tlb.last_miss();
  if (!miss.device || Tlb::crosses(address, sizeof(T))) return missed(cpu);
  DeviceAccess access{.to = DeviceAccess::To::kMemory,
                      .is_write = true,
                      .size = sizeof(T),
                      .address = miss.gpa.value};
  std::memcpy(access.data.data(), &value, sizeof value);
  return cpu.leave(access);
}

// The place of an operand that is read and written: null, and the instruction ends, when it is in
// two pages, or in a page table and KVM has to see the change.
std::byte* table_place(Cpu& cpu, std::size_t size) noexcept;

inline std::byte* place(Cpu& cpu, std::uint64_t address, std::size_t size) noexcept {
  std::byte* const at = cpu.tlb.write(address, size);
  return at != nullptr ? at : table_place(cpu, size);
}

}  // namespace vmm::interpreter
