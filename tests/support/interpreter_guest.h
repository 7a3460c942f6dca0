// A CPU in 64-bit code at CPL 0, with page tables and nothing else: for tests of the interpreter's
// parts, without KVM.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <vector>

#include "base/size.h"
#include "memory/guest_memory.h"
#include "vmm/interpreter/block.h"
#include "vmm/interpreter/cpu.h"
#include "vmm/x86/paging_context.h"

namespace vmm::interpreter {

struct FakeHostState final : HostState {
  std::optional<std::uint64_t> msr(std::uint32_t index) override {
    const auto found = msrs.find(index);
    return found == msrs.end() ? std::nullopt : std::optional(found->second);
  }
  std::optional<std::uint64_t> tsc_offset() override { return offset; }
  bool is_device_msr(std::uint32_t index) override { return index == device_msr; }
  bool has_no_hypercalls() override { return no_hypercalls; }

  std::map<std::uint32_t, std::uint64_t> msrs;
  std::optional<std::uint64_t> offset = 0;
  std::uint32_t device_msr = 0x80b;
  bool no_hypercalls = true;
};

// 4 MiB of RAM. The first 2 MiB are mapped page by page, each to itself.
struct CoreGuest {
  static constexpr std::uint64_t kRoot = 0x1000, kLevel3 = 0x2000, kLevel2 = 0x3000;
  static constexpr std::uint64_t kLeaves = 0x4000;
  static constexpr std::uint64_t kCode = 0x10000, kData = 0x20000, kStack = 0x40000;
  static constexpr std::uint64_t kKernelPage = kEntryPresent | kEntryWritable;

  CoreGuest() {
    put(kRoot, kLevel3 | kKernelPage | kEntryUser);
    put(kLevel3, kLevel2 | kKernelPage | kEntryUser);
    put(kLevel2, kLeaves | kKernelPage | kEntryUser);
    for (std::uint64_t page = 0; page < 512; ++page) map(page, page * 4096 | kKernelPage);
    cpu.system.cr0 = x86::kCr0Pe | x86::kCr0Pg | x86::kCr0Wp;
    cpu.system.cr4 = x86::kCr4Pae;
    cpu.system.cr3 = kRoot;
    cpu.system.efer = x86::kEferLme | x86::kEferLma | x86::kEferSce;
    cpu.system.cs.long_mode = true;
    cpu.system.cs.selector = 0x10;
    cpu.system.ss.selector = 0x18;
    cpu.file[x86::kRsp] = kStack;
    tlb.set_context(x86::paging_context(cpu.system, 0));
    cpu.set_rflags(2);
  }

  template <class T>
  T at(std::uint64_t gpa) const {
    return memory.read<T>(Gpa(gpa)).value();
  }
  template <class T>
  void put(std::uint64_t gpa, T value) {
    ASSERT_TRUE(memory.write(Gpa(gpa), value));
  }
  void map(std::uint64_t page, std::uint64_t entry) {
    put(kLeaves + page * 8, entry);
    tlb.forget();
  }

  // Puts the instruction at kCode and executes it there.
  Next step(const std::vector<std::uint8_t>& bytes) {
    EXPECT_TRUE(memory.write(Gpa(kCode), std::as_bytes(std::span(bytes))));
    block.count = 0;
    EXPECT_TRUE(decode_block(std::as_bytes(std::span(bytes)), block));
    EXPECT_EQ(block.insns[0].length, bytes.size());
    cpu.rip = kCode;
    cpu.next_rip() = kCode + bytes.size();
    return block.insns[0].run(cpu, block.insns[0]);
  }

  static GuestMemory make_memory() {
    std::vector<GuestRegion> regions;
    regions.push_back(GuestRegion::create(GpaRange::create(Gpa(0), MiB(4)).value(), {}).value());
    return GuestMemory::create(std::move(regions)).value();
  }

  GuestMemory memory = make_memory();
  int drops = 0;
  TableMap tables{memory, 1, [this] {
                    ++drops;
                    return Result<void>();
                  }};
  Tlb tlb{memory, tables};
  FakeHostState host;
  Cpu cpu{tlb, host};
  Block block;
};

}  // namespace vmm::interpreter
