// The C API: nothing that C++ throws comes out of it, whichever allocation fails; and hypercalls.
#include "vmm/c_api.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <utility>

namespace {

// How many allocations of this thread succeed before one fails; negative: all do.
thread_local long allocations_left = -1;

}  // namespace

void* operator new(std::size_t size) {
  if (allocations_left >= 0 && allocations_left-- == 0) throw std::bad_alloc();
  void* const memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

constexpr std::uint64_t kEnough = 120'000'000'000;

struct Delete {
  void operator()(vmm_config* config) const { vmm_config_free(config); }
  void operator()(vmm_vm* vm) const { vmm_destroy(vm); }
  void operator()(vmm_stop* stop) const { vmm_stop_free(stop); }
  void operator()(vmm_error* error) const { vmm_error_free(error); }
};
template <typename T>
using Own = std::unique_ptr<T, Delete>;

// mov $21,%ebx; mov $9,%al; mov $0x640,%dx; out %al,(%dx); mov %bl,%al; out %al,$0xf4
constexpr std::array<unsigned char, 16> kCode{0xbb, 21,   0,    0,    0,    0xb0, 9,    0x66,
                                              0xba, 0x40, 0x06, 0xee, 0x88, 0xd8, 0xe6, 0xf4};

Own<vmm_config> machine() {
  Own<vmm_config> config(vmm_config_new());
  vmm_config_set_memory(config.get(), 2U << 20);
  EXPECT_TRUE(vmm_config_set_irqchip(config.get(), "none", nullptr));
  EXPECT_TRUE(
      vmm_config_boot_flat(config.get(), kCode.data(), kCode.size(), 0x1000, "long", nullptr));
  return config;
}

// The machine, or nothing after a skipped test.
Own<vmm_vm> create(const vmm_config* config) {
  vmm_error* raw = nullptr;
  Own<vmm_vm> vm(vmm_create(config, &raw));
  const Own<vmm_error> error(raw);
  if (error == nullptr) return vm;
  const std::string message = vmm_error_message(error.get());
  if (std::string(vmm_error_code(error.get())) == "NoKvm") {
    [&] { GTEST_SKIP() << "needs KVM: " << message; }();
  } else {
    ADD_FAILURE() << message;
  }
  return nullptr;
}

// Calls fn(error) with its first, second, third, ... allocation failing, until none does; how often
// it failed for that. Every failure is told, as one of memory.
template <typename Fn>
int fail_each_allocation(Fn&& fn, long step = 1) {
  int failures = 0;
  for (long allowed = 0;; allowed += step) {
    vmm_error* raw = nullptr;
    allocations_left = allowed;
    const bool done = fn(&raw);
    const bool all_succeeded = allocations_left >= 0;
    allocations_left = -1;
    const Own<vmm_error> error(raw);
    if (all_succeeded) return failures;
    if (done) continue;  // it did without
    ++failures;
    if (error == nullptr) {
      ADD_FAILURE() << "no error is told after " << allowed << " allocations";
    } else {
      EXPECT_STREQ(vmm_error_code(error.get()), "Resource") << vmm_error_message(error.get());
    }
  }
}

TEST(CApi, LackOfMemoryIsAnError) {
  const Own<vmm_config> config = machine();
  const std::string path(100, 'x');
  EXPECT_GT(fail_each_allocation([&](vmm_error** error) {
              return vmm_config_boot_flat(config.get(), kCode.data(), kCode.size(), 0x1000, "long",
                                          error) != 0;
            }),
            0);
  // An error of its own, whose text is longer than what a lack of memory leaves.
  allocations_left = 0;
  vmm_error* raw = nullptr;
  EXPECT_FALSE(vmm_open_snapshot(path.c_str(), &raw));
  allocations_left = -1;
  const Own<vmm_error> error(raw);
  ASSERT_NE(error, nullptr);
  EXPECT_STREQ(vmm_error_message(error.get()), "Out of memory");
}

TEST(CApi, ConfigurationThatIsIncompleteMakesNoMachine) {
  const Own<vmm_config> config = machine();
  const std::string cmdline(100, 'x');
  allocations_left = 0;
  vmm_config_boot_builtin(config.get(), cmdline.c_str());
  allocations_left = -1;
  vmm_error* raw = nullptr;
  EXPECT_EQ(vmm_create(config.get(), &raw), nullptr);
  const Own<vmm_error> error(raw);
  ASSERT_NE(error, nullptr);
  EXPECT_STREQ(vmm_error_code(error.get()), "Resource");
}

TEST(CApi, NewConfigurationWithoutMemoryIsNone) {
  allocations_left = 0;
  vmm_config* const config = vmm_config_new();
  allocations_left = -1;
  EXPECT_EQ(config, nullptr);
}

TEST(CApi, MachineWithoutMemoryIsAnError) {
  const Own<vmm_config> config = machine();
  if (create(config.get()) == nullptr) return;
  constexpr long kStep = 17;  // there are many
  EXPECT_GT(fail_each_allocation(
                [&](vmm_error** error) {
                  Own<vmm_vm> vm(vmm_create(config.get(), error));
                  const long left = std::exchange(allocations_left, -1);  // not of its end
                  const bool made = vm != nullptr;
                  vm.reset();
                  allocations_left = left;
                  return made;
                },
                kStep),
            0);
}

// What the guest calls by.
struct Calls {
  std::uint64_t value = 0;
  std::uint32_t word = 0;
  bool stop = false;
};

void on_call(vmm_call* call, void* context) {
  auto& calls = *static_cast<Calls*>(context);
  calls.value = vmm_call_value(call);
  EXPECT_EQ(vmm_call_cpu(call), 0U);
  EXPECT_EQ(vmm_call_port(call), 0x640);
  vmm_registers registers;
  vmm_call_get_registers(call, &registers);
  EXPECT_EQ(registers.gpr[3], 21U);
  registers.gpr[3] *= 2;
  vmm_call_set_registers(call, &registers);
  EXPECT_TRUE(vmm_call_read_virtual(call, 0x3000, &calls.word, sizeof calls.word, nullptr));
  constexpr std::uint32_t kAnswer = 77;
  EXPECT_TRUE(vmm_call_write(call, 0x3000, &kAnswer, sizeof kAnswer, nullptr));
  vmm_error* raw = nullptr;
  EXPECT_FALSE(vmm_call_read(call, std::uint64_t{1} << 40, &registers, 1, &raw));
  EXPECT_NE(raw, nullptr);
  vmm_error_free(raw);
  if (calls.stop) vmm_call_stop(call, 5);
}

TEST(CApi, GuestCallsTheProgram) {
  Calls calls;
  const Own<vmm_config> config = machine();
  ASSERT_TRUE(vmm_config_add_hypercall(config.get(), 0x640, on_call, &calls, nullptr));
  const Own<vmm_vm> vm = create(config.get());
  if (vm == nullptr) return;
  constexpr std::uint32_t kQuestion = 76;
  ASSERT_TRUE(vmm_write(vm.get(), 0x3000, &kQuestion, sizeof kQuestion, nullptr));
  const Own<vmm_vm> copy(vmm_clone(vm.get(), nullptr));
  ASSERT_NE(copy, nullptr);
  const Own<vmm_stop> stop(vmm_run(vm.get(), kEnough, nullptr));
  ASSERT_NE(stop, nullptr);
  EXPECT_STREQ(vmm_stop_reason(stop.get()), "debug exit");
  EXPECT_EQ(vmm_stop_value(stop.get()), 42U);
  EXPECT_EQ(calls.value, 9U);
  EXPECT_EQ(calls.word, kQuestion);
  calls = {.stop = true};
  const Own<vmm_stop> in_call(vmm_run(copy.get(), kEnough, nullptr));
  ASSERT_NE(in_call, nullptr);
  EXPECT_STREQ(vmm_stop_reason(in_call.get()), "condition met");
  EXPECT_EQ(vmm_stop_value(in_call.get()), 5U);
}

TEST(CApi, TimeThatIsNotTheHostsIsMoved) {
  constexpr std::uint64_t kSecond = 1'000'000'000;
  const Own<vmm_config> config = machine();
  const Own<vmm_vm> of_the_host = create(config.get());
  if (of_the_host == nullptr) return;
  vmm_error* raw = nullptr;
  EXPECT_FALSE(vmm_advance_time(of_the_host.get(), kSecond, &raw));
  const Own<vmm_error> error(raw);
  EXPECT_STREQ(vmm_error_code(error.get()), "BadState");
  vmm_config_set_clock_rate(config.get(), 0);
  const Own<vmm_vm> still = create(config.get());
  ASSERT_NE(still, nullptr);
  EXPECT_TRUE(vmm_advance_time(still.get(), kSecond, nullptr));
  EXPECT_FALSE(vmm_advance_time(still.get(), ~std::uint64_t{0}, nullptr));
}

TEST(CApi, HypercallWithoutAFunctionIsRefused) {
  const Own<vmm_config> config = machine();
  ASSERT_TRUE(vmm_config_add_hypercall(config.get(), 0x640, nullptr, nullptr, nullptr));
  vmm_error* raw = nullptr;
  EXPECT_EQ(vmm_create(config.get(), &raw), nullptr);
  const Own<vmm_error> error(raw);
  ASSERT_NE(error, nullptr);
  EXPECT_STREQ(vmm_error_code(error.get()), "BadConfig");
}

}  // namespace
