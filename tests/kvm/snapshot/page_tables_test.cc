// A guest that is reset sees memory by the page tables of the snapshot, whatever it has made of
// them since, and whoever executes it.
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "tests/guests/guest.h"
#include "vmm/vm.h"

namespace vmm {
namespace {

DECLARE_GUEST(remap);

// Where the guest looks for its orders and leaves what it has read (remap.S).
constexpr Gpa kAtCpl3(0x2000), kResults(0x3000);

// Two sets of tables, from the root down, that map the page which the guest reads. Their first
// entries do; of the roots it is the second.
constexpr std::array<std::uint64_t, 4> kSet{0x100000, 0x101000, 0x102000, 0x103000};
constexpr std::array<std::uint64_t, 4> kOther{0x104000, 0x105000, 0x106000, 0x107000};
constexpr std::uint64_t kRoot = kSet[0], kOtherRoot = kOther[0];
constexpr std::uint64_t kFirstPage = 0x110000, kSecondPage = 0x111000, kThirdPage = 0x112000;
constexpr std::uint64_t kLargePage = 0x200000, kUnused = 0x113000;
constexpr std::uint64_t kEveryone = 7;  // present, writable, user
constexpr std::uint64_t kLarge = 0x80;
constexpr std::uint64_t kNothing = ~std::uint64_t{0};

struct Step {
  std::uint64_t entry, value, root;
};

struct Scenario {
  const char* name;
  std::vector<Step> steps;
  std::vector<std::uint64_t> reads;  // before the first step, and after each
  bool mapped = true;                // at first
};

std::ostream& operator<<(std::ostream& out, const Scenario& scenario) {
  return out << scenario.name;
}

std::vector<Scenario> scenarios() {
  return {
      {"PageTableEntry", {{kSet[3], kSecondPage | kEveryone, kRoot}}, {1, 2}},
      {"PageDirectoryEntry", {{kSet[2], kOther[3] | kEveryone, kRoot}}, {1, 2}},
      {"PageDirectoryPointer", {{kSet[1], kOther[2] | kEveryone, kRoot}}, {1, 2}},
      {"EntryOfTheRoot", {{kSet[0] + 8, kOther[1] | kEveryone, kRoot}}, {1, 2}},
      {"LargePage", {{kSet[2], kLargePage | kEveryone | kLarge, kRoot}}, {1, 4}},
      {"PageThatGoes", {{kSet[3], 0, kRoot}}, {1, kNothing}},
      {"TableThatGoes", {{kSet[1], 0, kRoot}}, {1, kNothing}},
      {"PageThatComes", {{kSet[3], kFirstPage | kEveryone, kRoot}}, {kNothing, 1}, false},
      {"TablesOfARootThatIsLeft",
       {{kUnused, 0, kOtherRoot},
        {kOther[3], kThirdPage | kEveryone, kOtherRoot},
        {kUnused, 0, kRoot}},
       {1, 2, 3, 1}},
      {"TableThatBecomesAnotherSLower",
       {{kSet[2], kOther[2] | kEveryone, kRoot}},
       {1, kSecondPage | kEveryone}},
  };
}

class PageTablesAfterReset : public testing::TestWithParam<std::tuple<Scenario, Toggle>> {
 public:
  static std::string name_of(const testing::TestParamInfo<ParamType>& info) {
    return std::string(std::get<0>(info.param).name) +
           (std::get<1>(info.param) == Toggle::kOn ? "_Interpreted" : "_InKvm");
  }

 protected:
  void SetUp() override {
    VmConfig config;
    config.memory.size = MiB(4);
    config.irqchip = interpreted() ? IrqchipMode::kUser : IrqchipMode::kNone;
    config.boot = FlatBoot{.image = guest_code(guest_remap_begin, guest_remap_end)};
    config.quirks.push_back({.name = "interpret-kernel", .value = std::get<1>(GetParam())});
    auto vm = Vm::create(std::move(config));
    if (!vm &&
        (vm.error().code() == ErrorCode::kNoKvm || vm.error().code() == ErrorCode::kUnsupported)) {
      GTEST_SKIP() << "needs KVM: " << vm.error().message();
    }
    ASSERT_TRUE(vm) << vm.error().message();
    vm_ = *std::move(vm);
    prepare();
  }

  static bool interpreted() { return std::get<1>(GetParam()) == Toggle::kOn; }
  static const Scenario& scenario() { return std::get<0>(GetParam()); }

  void write(std::uint64_t address, std::uint64_t value) {
    ASSERT_TRUE(vm_->memory().write(Gpa(address), value));
  }
  std::uint64_t read(std::uint64_t address) {
    return vm_->memory().read<std::uint64_t>(Gpa(address)).value();
  }

  // The tables, the pages behind them, and the guest's orders.
  void prepare() {
    const std::uint64_t boot_root = vm_->system_registers(VcpuId{0}).value().cr3;
    for (const auto& [set, page] : {std::pair(kSet, kFirstPage), std::pair(kOther, kSecondPage)}) {
      write(set[0], read(boot_root));
      write(set[0] + 8, set[1] | kEveryone);
      write(set[1], set[2] | kEveryone);
      write(set[2], set[3] | kEveryone);
      write(set[3], page | kEveryone);
    }
    if (!scenario().mapped) write(kSet[3], 0);
    write(kFirstPage, 1);
    write(kSecondPage, 2);
    write(kThirdPage, 3);
    write(kLargePage, 4);
    std::uint64_t at = kAtCpl3.value + 8;
    write(at, kRoot);
    write(at += 8, scenario().steps.size());
    for (const Step& step : scenario().steps) {
      write(at += 8, step.entry);
      write(at += 8, step.value);
      write(at += 8, step.root);
    }
  }

  // Until the guest says something.
  void run() {
    const auto stop = vm_->run({.deadline = std::chrono::minutes(1)});
    ASSERT_TRUE(stop) << stop.error().message();
    ASSERT_EQ(stop->reason, StopReason::kDebugExit) << *stop;
  }

  std::vector<std::uint64_t> reads() {
    std::vector<std::uint64_t> values;
    for (std::size_t i = 0; i < scenario().reads.size(); ++i) {
      values.push_back(read(kResults.value + 8 * i));
    }
    return values;
  }

  std::unique_ptr<Vm> vm_;
};

INSTANTIATE_TEST_SUITE_P(Scenarios, PageTablesAfterReset,
                         testing::Combine(testing::ValuesIn(scenarios()),
                                          testing::Values(Toggle::kOff, Toggle::kOn)),
                         PageTablesAfterReset::name_of);

TEST_P(PageTablesAfterReset, AreThoseOfTheSnapshot) {
  run();
  const auto snapshot = vm_->snapshot();
  ASSERT_TRUE(snapshot) << snapshot.error().message();
  // At CPL 3 and at CPL 0, each behind each: a software KVM executes them in different ways.
  for (const std::uint64_t cpl3 : {0, 0, 1, 1, 0, 1, 0, 0, 1}) {
    SCOPED_TRACE(cpl3 != 0 ? "at CPL 3" : "at CPL 0");
    const auto done = vm_->reset_to(*snapshot);
    ASSERT_TRUE(done) << done.error().message();
    write(kAtCpl3.value, cpl3);
    run();
    ASSERT_EQ(reads(), scenario().reads);
  }
}

}  // namespace
}  // namespace vmm
