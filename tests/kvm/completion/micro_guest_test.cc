// A real guest at CPL 0, run by a loop of a few lines: what completion does to KVM's own state.
#include <gtest/gtest.h>

#include <optional>
#include <set>
#include <string>

#include "base/le.h"
#include "base/size.h"
#include "vmm/completion/completer.h"
#include "vmm/completion/kvm_cpu.h"
#include "vmm/completion/sandbox.h"
#include "vmm/kvm/system.h"
#include "vmm/x86/format.h"

extern "C" {
extern const std::byte micro_guest_start[];
extern const std::byte micro_guest_end[];
extern const std::byte micro_guest_breakpoint[];
extern const std::byte micro_guest_vector80[];
extern const std::byte micro_guest_page_fault[];
extern const std::byte micro_guest_divide[];
}

namespace vmm::completion {
namespace {

constexpr std::uint64_t kCode = 0x10000;
constexpr std::uint64_t kResults = 0x30000;
constexpr std::uint64_t kMmio = 0x20000000;
constexpr std::uint16_t kEndPort = 0xf4;

// Sixteen bytes of device memory.
class TinyDevice final : public MmioBus {
 public:
  void read(Gpa address, std::span<std::byte> data) override {
    for (std::size_t i = 0; i < data.size(); ++i) data[i] = bytes[(address.value + i) & 15];
  }
  void write(Gpa address, std::span<const std::byte> data) override {
    for (std::size_t i = 0; i < data.size(); ++i) bytes[(address.value + i) & 15] = data[i];
  }
  std::array<std::byte, 16> bytes{};
};

class MicroGuestTest : public testing::Test {
 protected:
  void SetUp() override {
    auto system = kvm::System::open();
    if (!system) GTEST_SKIP() << system.error().message();
    system_.emplace(std::move(*system));
    std::vector<GuestRegion> regions;
    regions.push_back(GuestRegion::create(GpaRange::create(Gpa(0), MiB(2)).value(), {}).value());
    memory_ = GuestMemory::create(std::move(regions)).value();
    vm_.emplace(system_->create_vm().value());
    const GuestRegion& region = memory_.regions()[0];
    ASSERT_TRUE(vm_->set_slot({0, region.range(), region.hva()}));
    if (system_->capabilities().exit_on_emulation_failure) {
      ASSERT_TRUE(vm_->enable_exit_on_emulation_failure());
    }
    cpu_.emplace(vm_->create_vcpu(0).value());
    ASSERT_TRUE(cpu_->set_cpuid(system_->supported_cpuid().value()));
    load();
    start(micro_guest_start);
    sandbox_.emplace(*system_);
    completer_.emplace(memory_, device_, &*sandbox_);
  }

  template <typename T>
  void put(std::uint64_t at, T value) {
    ASSERT_TRUE(memory_.write<T>(Gpa(at), value));
  }
  template <typename T>
  T result(std::uint64_t offset) {
    return memory_.read<T>(Gpa(kResults + offset)).value();
  }
  static std::uint64_t address_of(const std::byte* symbol) {
    return kCode + static_cast<std::uint64_t>(symbol - micro_guest_start);
  }
  void gate(std::uint64_t vector, const std::byte* handler) {
    const std::uint64_t at = address_of(handler);
    put<std::uint64_t>(0x6000 + 16 * vector,
                       (at & 0xffff) | 0x8ULL << 16 | 0x8eULL << 40 | (at >> 16 & 0xffff) << 48);
  }

  // Tables at 0x1000: 512 pages of 2 MiB, identity; GDT at 0x5000, IDT at 0x6000, stack below
  // 0x9000.
  void load() {
    put<std::uint64_t>(0x1000, 0x2003);
    put<std::uint64_t>(0x2000, 0x3003);
    for (std::uint64_t i = 0; i < 512; ++i) put<std::uint64_t>(0x3000 + 8 * i, i << 21 | 0x83);
    put<std::uint64_t>(0x5008, 0x00af9b000000ffff);
    put<std::uint64_t>(0x5010, 0x00cf93000000ffff);
    gate(3, micro_guest_breakpoint);
    gate(0x80, micro_guest_vector80);
    gate(14, micro_guest_page_fault);
    gate(19, micro_guest_divide);
    const auto size = static_cast<std::size_t>(micro_guest_end - micro_guest_start);
    ASSERT_TRUE(memory_.write(Gpa(kCode), std::span(micro_guest_start, size)));
  }

  void start(const std::byte* where) {
    x86::SystemRegisters s = cpu_->system_registers().value();
    s.cs = x86::Segment{};
    s.cs.limit = 0xffffffff;
    s.cs.selector = 8;
    s.cs.type = 0xb;
    s.cs.long_mode = true;
    s.cs.granularity = true;
    x86::Segment data = s.cs;
    data.selector = 16;
    data.type = 3;
    data.long_mode = false;
    data.default_big = true;
    s.ds = s.es = s.fs = s.gs = s.ss = data;
    s.gdt = {0x5000, 0x17};
    s.idt = {0x6000, 0xfff};
    s.cr0 = x86::kCr0Pe | x86::kCr0Mp | x86::kCr0Et | x86::kCr0Ne | x86::kCr0Wp | x86::kCr0Pg;
    s.cr3 = 0x1000;
    s.cr4 = x86::kCr4Pae | x86::kCr4Osfxsr | x86::kCr4Osxsave | (1U << 10);
    s.efer = x86::kEferLme | x86::kEferLma;
    ASSERT_TRUE(cpu_->set_system_registers(s));
    x86::Registers r;
    r.rip = address_of(where);
    r.gpr[x86::kRsp] = 0x9000;
    r.gpr[x86::kRbx] = kResults;
    ASSERT_TRUE(cpu_->set_registers(r));
  }

  // Runs until the guest writes to kEndPort; the answer says how it ended otherwise.
  std::string run() {
    for (;;) {
      VcpuExit exit = cpu_->run().value();
      if (const auto* pio = std::get_if<PioExit>(&exit)) {
        return pio->port == kEndPort ? "end" : "unexpected port";
      }
      if (auto* mmio = std::get_if<MmioExit>(&exit)) {
        if (mmio->is_write) {
          device_.write(mmio->address, mmio->data);
        } else {
          device_.read(mmio->address, mmio->data);
        }
        continue;
      }
      const auto* failure = std::get_if<EmulationFailureExit>(&exit);
      if (failure == nullptr) {
        return fmt::format(
            "{}\n{}", kExitNames[exit.index()],
            x86::format_registers(cpu_->registers().value(), cpu_->system_registers().value()));
      }
      const std::string problem = complete(*failure);
      if (!problem.empty()) return problem;
    }
  }
  std::string complete(const EmulationFailureExit& failure) {
    KvmCpu cpu(*cpu_);
    auto outcome = completer_->complete(cpu, std::span(failure.bytes).first(failure.size));
    if (!outcome) return outcome.error().message();
    if (const auto* cannot = std::get_if<Cannot>(&*outcome)) return cannot->report;
    if (const auto* finished = std::get_if<Finished>(&*outcome)) seen_.emplace(finished->mnemonic);
    ++completions_;
    return {};
  }

  std::optional<kvm::System> system_;
  GuestMemory memory_;
  std::optional<kvm::VmFd> vm_;
  std::optional<kvm::VcpuFd> cpu_;
  TinyDevice device_;
  std::optional<Sandbox> sandbox_;
  std::optional<Completer> completer_;
  std::set<std::string> seen_;
  std::uint64_t completions_ = 0;
};

// On a host whose KVM runs all this by itself the results are the same.
TEST_F(MicroGuestTest, RunsThroughEverything) {
  ASSERT_EQ(run(), "end");
  EXPECT_EQ(result<std::uint64_t>(0), 1U) << "int3";
  EXPECT_EQ(result<std::uint64_t>(8), 1U) << "int 0x80";
  EXPECT_NE(result<std::uint64_t>(16) & x86::kFlagAc, 0U) << "stac";
  EXPECT_EQ(result<std::uint64_t>(24) & x86::kFlagAc, 0U) << "clac";
  EXPECT_EQ(result<std::uint64_t>(32), 32U) << "popcnt";
  EXPECT_EQ(result<std::uint8_t>(40), 1U) << "cmpxchg16b";
  EXPECT_EQ(result<std::uint64_t>(48), 0x11U) << "cmpxchg16b";
  EXPECT_EQ(result<std::uint64_t>(56), 0x22U) << "cmpxchg16b";
  EXPECT_EQ(result<std::uint32_t>(68), 0x1fa0U) << "ldmxcsr, stmxcsr";
  EXPECT_EQ(result<std::uint8_t>(72), 1U) << "fwait";
  EXPECT_EQ(result<std::uint64_t>(88), 31U) << "pext";
  EXPECT_EQ(result<std::uint8_t>(112), 1U) << "clwb, clflushopt, invpcid";
  EXPECT_EQ(result<std::uint32_t>(116), 3U) << "xsetbv, xgetbv";
  EXPECT_EQ(cpu_->xcr0().value(), 3U);
  EXPECT_EQ(result<std::uint64_t>(128), 0x08090a0b0c0d0e0fU) << "pshufb";
  EXPECT_EQ(result<std::uint64_t>(144), 0x08090a0b0c0d0e0fU) << "xsave, xrstor";
  EXPECT_EQ(load_le(device_.bytes), 0x08090a0b0c0d0e0fU) << "movaps to MMIO";
  EXPECT_EQ(result<std::uint32_t>(160), 12U) << "popcnt of MMIO";
  EXPECT_EQ(result<std::uint64_t>(168), 0x40000000U) << "CR2";
  EXPECT_EQ(result<std::uint64_t>(176), 0U) << "#PF error code";
  EXPECT_EQ(result<std::uint64_t>(184), 1U) << "#XM";
}

}  // namespace
}  // namespace vmm::completion
