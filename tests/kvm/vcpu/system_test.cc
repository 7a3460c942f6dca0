// /dev/kvm itself, where the calling thread is not left alone.
#include "vmm/kvm/system.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "tests/kvm/vcpu/small_vm.h"

namespace vmm::kvm {
namespace {

// Sends a signal that does nothing to the calling thread, every few hundred microseconds.
class SignalStorm {
 public:
  SignalStorm() : target_(::pthread_self()) {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    ::sigaction(SIGUSR2, &action, &before_);
    sender_ = std::thread([this] {
      while (!over_.load()) {
        ::pthread_kill(target_, SIGUSR2);
        std::this_thread::sleep_for(std::chrono::microseconds(200));
      }
    });
  }
  ~SignalStorm() {
    over_.store(true);
    sender_.join();
    ::sigaction(SIGUSR2, &before_, nullptr);
  }
  SignalStorm(const SignalStorm&) = delete;
  SignalStorm& operator=(const SignalStorm&) = delete;

 private:
  pthread_t target_;
  struct sigaction before_ {};
  std::atomic<bool> over_{false};
  std::thread sender_;
};

using SystemTest = KvmTest;

TEST_F(SystemTest, MachinesAreCreated_althoughSignalsCome) {
  const SignalStorm storm;
  for (int i = 0; i < 50; ++i) {
    const auto vm = system().create_vm();
    ASSERT_TRUE(vm) << "machine " << i << ": " << vm.error().message();
  }
}

}  // namespace
}  // namespace vmm::kvm
