// The C API: nothing that C++ throws comes out of it, whichever allocation fails; hypercalls;
// machines whose memory comes when it is touched.
#include "vmm/c_api.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/scratch_directory.h"

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
// As the standard library's, but sanitizers have their own.
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  try {
    return operator new(size);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
// Not inline: GCC would warn that what an operator new has given, which it does not see, is freed.
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

constexpr std::uint64_t kEnough = 120'000'000'000;

struct Delete {
  void operator()(vmm_config* config) const { vmm_config_free(config); }
  void operator()(vmm_vm* vm) const { vmm_destroy(vm); }
  void operator()(vmm_stop* stop) const { vmm_stop_free(stop); }
  void operator()(vmm_error* error) const { vmm_error_free(error); }
  void operator()(vmm_snapshot* snapshot) const { vmm_snapshot_free(snapshot); }
  void operator()(vmm_page_list* list) const { vmm_page_list_free(list); }
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

// What fn(error) fails with: the name of the code; "" when it does not.
template <typename Fn>
std::string failure(Fn&& fn) {
  vmm_error* raw = nullptr;
  const bool good = fn(&raw);
  const Own<vmm_error> error(raw);
  EXPECT_EQ(good, error == nullptr);
  return error == nullptr ? "" : vmm_error_code(error.get());
}

// A guest in a file, which machines go on from whose memory comes when it is touched.
class CApiFaultedMemory : public testing::Test {
 protected:
  static constexpr std::uint64_t kCodePage = 1;

  void SetUp() override {
    const Own<vmm_config> config = machine();
    const Own<vmm_vm> vm = create(config.get());
    if (vm == nullptr) return;
    ASSERT_TRUE(vmm_save(vm.get(), file_.c_str(), nullptr));
    snapshot_ = open(file_);
    ASSERT_NE(snapshot_, nullptr);
    const std::string refused = failure([&](vmm_error** error) {
      return Own<vmm_vm>(vmm_create(faulted().get(), error)) != nullptr;
    });
    if (refused == "Unsupported") GTEST_SKIP() << "needs userfaultfd(2)";
    ASSERT_EQ(refused, "");
  }
  static Own<vmm_snapshot> open(const std::string& file) {
    return Own<vmm_snapshot>(vmm_open_snapshot(file.c_str(), nullptr));
  }
  Own<vmm_config> faulted(const vmm_page_list* prefetch = nullptr) const {
    Own<vmm_config> config(vmm_config_new());
    EXPECT_TRUE(vmm_config_boot_snapshot_faulted(config.get(), snapshot_.get(), prefetch, nullptr));
    return config;
  }
  static std::vector<std::uint64_t> pages_of(const vmm_page_list* list) {
    const std::uint64_t* const pages = vmm_page_list_pages(list);
    return {pages, pages + vmm_page_list_size(list)};
  }
  static std::string end_of(vmm_vm* vm) {
    const Own<vmm_stop> stop(vmm_run(vm, kEnough, nullptr));
    return stop == nullptr ? "" : vmm_stop_reason(stop.get());
  }

  vmm::test::ScratchDirectory scratch_;
  const std::string file_ = scratch_.file("guest.snap");
  Own<vmm_snapshot> snapshot_;
};

TEST_F(CApiFaultedMemory, UsedPagesGoThroughAFileToTheNextMachine) {
  const std::string path = scratch_.file("guest.pages");
  std::vector<std::uint64_t> used;
  {
    const Own<vmm_vm> vm(vmm_create(faulted().get(), nullptr));
    ASSERT_NE(vm, nullptr);
    EXPECT_EQ(end_of(vm.get()), "debug exit");
    const Own<vmm_page_list> list(vmm_used_pages(vm.get(), nullptr));
    ASSERT_NE(list, nullptr);
    used = pages_of(list.get());
    EXPECT_EQ(std::count(used.begin(), used.end(), kCodePage), 1);
    ASSERT_TRUE(vmm_write_page_list(list.get(), path.c_str(), nullptr));
  }
  const Own<vmm_page_list> list(vmm_read_page_list(path.c_str(), nullptr));
  ASSERT_NE(list, nullptr);
  EXPECT_EQ(pages_of(list.get()), used);
  const Own<vmm_vm> next(vmm_create(faulted(list.get()).get(), nullptr));
  ASSERT_NE(next, nullptr);
  EXPECT_EQ(end_of(next.get()), "debug exit");
  const Own<vmm_page_list> again(vmm_used_pages(next.get(), nullptr));
  ASSERT_NE(again, nullptr);
  EXPECT_EQ(pages_of(again.get()), used);
}

TEST_F(CApiFaultedMemory, ListsThatDoNotFitAreRefused) {
  constexpr std::array<std::uint64_t, 2> kPages{3, 1};
  const Own<vmm_page_list> list(
      vmm_new_page_list(snapshot_.get(), kPages.data(), kPages.size(), nullptr));
  ASSERT_NE(list, nullptr);
  EXPECT_EQ(pages_of(list.get()), (std::vector<std::uint64_t>{3, 1}));
  const Own<vmm_page_list> empty(vmm_new_page_list(snapshot_.get(), nullptr, 0, nullptr));
  ASSERT_NE(empty, nullptr);
  EXPECT_EQ(vmm_page_list_size(empty.get()), 0U);
  EXPECT_EQ(vmm_page_list_pages(empty.get()), nullptr);
  constexpr std::array<std::uint64_t, 1> kBehind{2U << 20 >> 12};
  EXPECT_EQ(failure([&](vmm_error** error) {
              return vmm_new_page_list(snapshot_.get(), kBehind.data(), 1, error) != nullptr;
            }),
            "BadState");
  EXPECT_EQ(failure([&](vmm_error** error) {
              return vmm_read_page_list(file_.c_str(), error) != nullptr;
            }),
            "BadState");
  // Of a machine in memory: not that of the file, and without a name for a file.
  const Own<vmm_vm> vm(vmm_create(machine().get(), nullptr));
  ASSERT_NE(vm, nullptr);
  const Own<vmm_snapshot> other(vmm_take_snapshot(vm.get(), nullptr));
  ASSERT_NE(other, nullptr);
  const Own<vmm_config> config(vmm_config_new());
  EXPECT_EQ(failure([&](vmm_error** error) {
              return vmm_config_boot_snapshot_faulted(config.get(), other.get(), list.get(),
                                                      error) != 0;
            }),
            "BadState");
  const Own<vmm_page_list> nameless(
      vmm_new_page_list(other.get(), kPages.data(), kPages.size(), nullptr));
  ASSERT_NE(nameless, nullptr);
  EXPECT_EQ(failure([&](vmm_error** error) {
              return vmm_write_page_list(nameless.get(), scratch_.file("x").c_str(), error) != 0;
            }),
            "Unsupported");
  EXPECT_EQ(failure([&](vmm_error** error) { return vmm_used_pages(vm.get(), error) != nullptr; }),
            "Unsupported")
      << "its memory is its own";
}

TEST_F(CApiFaultedMemory, DamageEndsTheRun) {
  std::vector<std::byte> bytes = vmm::test::read_file(file_);
  constexpr std::size_t kMemoryInFile = 4096;
  bytes[kMemoryInFile + kCodePage * 4096 + 200] ^= std::byte{1};
  vmm::test::write_file(file_, bytes);
  snapshot_ = open(file_);
  const Own<vmm_vm> vm(vmm_create(faulted().get(), nullptr));
  ASSERT_NE(vm, nullptr);
  EXPECT_EQ(end_of(vm.get()), "memory fault");
}

TEST_F(CApiFaultedMemory, LackOfMemoryIsAnError) {
  const Own<vmm_vm> vm(vmm_create(faulted().get(), nullptr));
  ASSERT_NE(vm, nullptr);
  EXPECT_EQ(end_of(vm.get()), "debug exit");
  const Own<vmm_page_list> list(vmm_used_pages(vm.get(), nullptr));
  ASSERT_NE(list, nullptr);
  const std::string path = scratch_.file("guest.pages");
  const Own<vmm_config> config(vmm_config_new());
  EXPECT_GT(fail_each_allocation([&](vmm_error** error) {
              return Own<vmm_page_list>(vmm_used_pages(vm.get(), error)) != nullptr;
            }),
            0);
  EXPECT_GT(fail_each_allocation([&](vmm_error** error) {
              constexpr std::uint64_t kPage = 1;
              return Own<vmm_page_list>(vmm_new_page_list(snapshot_.get(), &kPage, 1, error)) !=
                     nullptr;
            }),
            0);
  EXPECT_GT(fail_each_allocation([&](vmm_error** error) {
              return vmm_write_page_list(list.get(), path.c_str(), error) != 0;
            }),
            0);
  EXPECT_GT(fail_each_allocation([&](vmm_error** error) {
              return Own<vmm_page_list>(vmm_read_page_list(path.c_str(), error)) != nullptr;
            }),
            0);
  EXPECT_GT(fail_each_allocation([&](vmm_error** error) {
              return vmm_config_boot_snapshot_faulted(config.get(), snapshot_.get(), list.get(),
                                                      error) != 0;
            }),
            0);
}

}  // namespace
