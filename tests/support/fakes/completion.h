// A CPU, a bus and an executor of plain values, and a small long-mode guest around them.
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "base/le.h"
#include "base/size.h"
#include "memory/page_walk.h"
#include "vmm/completion/completer.h"
#include "vmm/completion/cpu.h"
#include "vmm/completion/executor.h"

namespace vmm::completion {

class FakeCpu final : public Cpu {
 public:
  Result<x86::Registers> registers() override { return regs; }
  Result<void> set_registers(const x86::Registers& r) override {
    regs = r;
    return {};
  }
  Result<x86::SystemRegisters> system_registers() override { return system; }
  Result<void> set_system_registers(const x86::SystemRegisters& r) override {
    system = r;
    return {};
  }
  Result<x86::XsaveArea> xsave() override { return area; }
  Result<void> set_xsave(const x86::XsaveArea& a) override {
    area = a;
    ++xsave_writes;
    return {};
  }
  Result<std::uint64_t> xcr0() override { return xcr0_value; }
  Result<bool> set_xcr0(std::uint64_t value) override {
    if ((value & ~xcr0_supported) != 0) return false;
    xcr0_value = value;
    return true;
  }
  Result<std::optional<std::uint64_t>> msr(std::uint32_t index) override {
    const auto found = msrs.find(index);
    if (found == msrs.end()) return std::optional<std::uint64_t>();
    return std::optional<std::uint64_t>(found->second);
  }
  Result<bool> set_msr(std::uint32_t index, std::uint64_t value) override {
    msrs[index] = value;
    return true;
  }
  Result<void> inject(const Event& e) override {
    event = e;
    return {};
  }
  Result<void> end_interrupt_shadow() override {
    ++shadows_ended;
    return {};
  }
  Result<void> end_nmi_blocking() override {
    ++nmis_unblocked;
    return {};
  }
  Result<bool> breakpoints_armed() override { return breakpoints; }
  Result<void> flush_tlb() override {
    ++flushes;
    return {};
  }

  x86::Registers regs;
  x86::SystemRegisters system;
  x86::XsaveArea area = x86::XsaveArea(4096);
  std::uint64_t xcr0_value = 7;
  std::uint64_t xcr0_supported = 7;
  std::map<std::uint32_t, std::uint64_t> msrs;
  std::optional<Event> event;
  bool breakpoints = false;
  int xsave_writes = 0, shadows_ended = 0, nmis_unblocked = 0, flushes = 0;
};

// Remembers every access; reads answer with the low byte of each address.
class FakeBus final : public MmioBus {
 public:
  struct Access {
    bool is_write;
    std::uint64_t address;
    std::size_t size;
    std::uint64_t value;
    bool operator==(const Access&) const = default;
  };
  void read(Gpa address, std::span<std::byte> data) override {
    for (std::size_t i = 0; i < data.size(); ++i) {
      data[i] = static_cast<std::byte>(address.value + i);
    }
    accesses.push_back({false, address.value, data.size(), load_le(data)});
  }
  void write(Gpa address, std::span<const std::byte> data) override {
    accesses.push_back({true, address.value, data.size(), load_le(data)});
  }
  std::vector<Access> accesses;
};

// Runs a function instead of the instruction.
class FakeExecutor final : public Executor {
 public:
  Result<std::optional<JobException>> run(Job& job) override {
    ++runs;
    last = job;
    operand.assign(job.operand.begin(), job.operand.end());
    return action ? action(job) : std::optional<JobException>();
  }
  std::uint32_t operand_address(std::uint32_t offset) const noexcept override {
    return 0x20000 + offset;
  }
  std::function<std::optional<JobException>(Job&)> action;
  Job last;
  std::vector<std::byte> operand;  // as the instruction would have seen it
  int runs = 0;
};

// 1 MiB of RAM at 0, identity-mapped by 4 KiB pages up to 2 MiB: the second half is not RAM. Code
// is at kCode. Page tables: 0x1000 to 0x4fff.
struct FakeGuest {
  static constexpr std::uint64_t kCode = 0x10000;
  static constexpr std::uint64_t kMmio = 0x180000;

  FakeGuest() {
    std::vector<GuestRegion> regions;
    regions.push_back(GuestRegion::create(GpaRange::create(Gpa(0), MiB(1)).value(), {}).value());
    memory = GuestMemory::create(std::move(regions)).value();
    put<std::uint64_t>(0x1000, 0x2007);
    put<std::uint64_t>(0x2000, 0x3007);
    put<std::uint64_t>(0x3000, 0x4007);
    for (std::uint64_t i = 0; i < 512; ++i) put<std::uint64_t>(0x4000 + 8 * i, i * 4096 | 7);
    cpu.system.cr0 = x86::kCr0Pe | x86::kCr0Pg | x86::kCr0Wp | x86::kCr0Mp | x86::kCr0Ne;
    cpu.system.cr3 = 0x1000;
    cpu.system.cr4 = x86::kCr4Pae | x86::kCr4Osfxsr | x86::kCr4Osxsave | (1U << 10);
    cpu.system.efer = x86::kEferLme | x86::kEferLma | x86::kEferNxe;
    cpu.system.cs.long_mode = true;
    cpu.system.cs.type = 0xb;
    cpu.system.idt.base = 0x8000;
    cpu.system.idt.limit = 0xfff;
    cpu.regs.rip = kCode;
    store_area<std::uint16_t>(0, 0x37f);
    store_area<std::uint32_t>(24, 0x1f80);
    store_area<std::uint32_t>(28, 0xffff);
    store_area<std::uint64_t>(512, 3);
  }

  template <typename T>
  void put(std::uint64_t at, T value) {
    static_cast<void>(memory.write<T>(Gpa(at), value));
  }
  template <typename T>
  T get(std::uint64_t at) {
    return memory.read<T>(Gpa(at)).value();
  }
  template <typename T>
  void store_area(std::size_t at, T value) {
    std::memcpy(&cpu.area[at], &value, sizeof value);
  }
  template <typename T>
  T load_area(std::size_t at) {
    T value{};
    std::memcpy(&value, &cpu.area[at], sizeof value);
    return value;
  }
  // The page table entry of a page of the first 2 MiB.
  void map(std::uint64_t page, std::uint64_t entry) {
    put<std::uint64_t>(0x4000 + 8 * page, entry);
  }
  void to_user_mode() { cpu.system.ss.dpl = 3; }
  // 32-bit protected mode with paging off.
  void to_32bit() {
    cpu.system.cr0 = x86::kCr0Pe;
    cpu.system.efer = 0;
    cpu.system.cs.long_mode = false;
    cpu.system.cs.default_big = true;
    for (x86::Segment* s : {&cpu.system.cs, &cpu.system.ds, &cpu.system.es, &cpu.system.ss,
                            &cpu.system.fs, &cpu.system.gs}) {
      s->limit = 0xffffffff;
    }
  }

  // Standard layout of Intel processors, so that tests do not depend on where they run.
  static XsaveLayout layout() {
    XsaveLayout l;
    l.components[0] = {0, 160, false};
    l.components[1] = {160, 256, false};
    l.components[2] = {576, 256, false};
    l.components[5] = {1088, 64, false};
    l.components[6] = {1152, 512, false};
    l.components[7] = {1664, 1024, true};
    l.components[9] = {2688, 8, false};
    return l;
  }

  Outcome complete(const std::vector<std::uint8_t>& bytes) {
    Completer completer(
        memory, bus, runner,
        {.fast_paths = fast_paths, .run_ahead = ahead, .xsave_layout = xsave_layout});
    auto outcome = completer.complete(cpu, bytes);
    if (!outcome) return Cannot{"host error", outcome.error().message()};
    return *std::move(outcome);
  }

  GuestMemory memory;
  FakeCpu cpu;
  FakeBus bus;
  FakeExecutor executor;
  Executor* runner = &executor;
  XsaveLayout xsave_layout = layout();
  bool fast_paths = true;
  std::uint32_t ahead = 128;
};

}  // namespace vmm::completion
