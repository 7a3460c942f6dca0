// A host on which no more threads can be made (EAGAIN of pthread_create(3): limits of users, of
// control groups, of memory).
#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cerrno>

#include "tests/kvm/library/library_guest.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAS_ITS_OWN 1  // sanitizers have their own pthread_create
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define HAS_ITS_OWN 1
#endif
#endif

namespace {
std::atomic<int> threads_left{1 << 30};
}  // namespace

#ifndef HAS_ITS_OWN
// Comes before the C library's.
extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes,
                              void* (*start)(void*), void* argument) {
  using Create = int(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  if (threads_left.fetch_sub(1) <= 0) return EAGAIN;
  static auto* const real = reinterpret_cast<Create*>(::dlsym(RTLD_NEXT, "pthread_create"));
  return real(thread, attributes, start, argument);
}
#endif

namespace vmm {
namespace {

class NoThreads : public testing::TestWithParam<std::uint32_t> {
 protected:
  void SetUp() override {
#ifdef HAS_ITS_OWN
    GTEST_SKIP() << "a sanitizer has pthread_create";
#endif
  }
  void TearDown() override { threads_left = 1 << 30; }
};

TEST_P(NoThreads, RunFails_everyCpuStands_andTheNextRunGoes) {
  VmConfig config = flat({std::byte{0xeb}, std::byte{0xfe}});
  config.cpus.count = 3;
  config.irqchip = IrqchipMode::kUser;
  const auto vm = create(std::move(config));
  if (!vm) return;
  threads_left = static_cast<int>(GetParam());
  const auto refused = vm->run({.deadline = kEnough});
  threads_left = 1 << 30;
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kResource);
  EXPECT_NE(refused.error().message().find("thread of vCPU " + std::to_string(GetParam())),
            std::string::npos)
      << refused.error().message();
  const auto registers = vm->registers(VcpuId{0});
  EXPECT_TRUE(registers) << "a CPU runs: " << registers.error().message();
  EXPECT_EQ(good(vm->run({.deadline = std::chrono::milliseconds(20)})).reason,
            StopReason::kDeadline);
}

// Its devices are served by an event loop, which has a thread.
TEST(NoThreadsAtAll, MachineWithADevice_saysSo_andRunsWhenThereAreSome) {
#ifdef HAS_ITS_OWN
  GTEST_SKIP() << "a sanitizer has pthread_create";
#endif
  VmConfig config = flat({std::byte{0xeb}, std::byte{0xfe}});
  config.irqchip = IrqchipMode::kUser;
  config.virtio.emplace_back(VirtioRngConfig{});
  threads_left = 0;
  const auto vm = create(std::move(config));
  const auto refused = vm ? vm->run({.deadline = kEnough}) : Result<StopInfo>();
  threads_left = 1 << 30;
  if (!vm) return;
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kResource) << refused.error().message();
  EXPECT_EQ(good(vm->run({.deadline = std::chrono::milliseconds(20)})).reason,
            StopReason::kDeadline);
}

INSTANTIATE_TEST_SUITE_P(After, NoThreads, testing::Values(0, 1, 2));

}  // namespace
}  // namespace vmm
