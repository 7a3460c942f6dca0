// Many machines in one process know nothing of each other.
#include <atomic>
#include <thread>

#include "devices/capture_sink.h"
#include "devices/function_device.h"
#include "tests/kvm/library/library_guest.h"

namespace vmm {
namespace {

DECLARE_GUEST(rendezvous);

constexpr std::size_t kMachines = 32;

// Where all guests meet: each asks for its number, and none goes on before all have.
class Meeting {
 public:
  EmbedderDevice seat(std::uint64_t number) {
    FunctionDevice::Handlers handlers;
    handlers.read = [this, number](const IoAccess& access, std::size_t) -> std::uint64_t {
      if (access.offset == 0) {
        ++arrived_;
        return number;
      }
      return arrived_ == kMachines ? 1 : 0;
    };
    return {.ports = {{.base = 0x700, .size = 8}}, .make = [handlers](const DeviceHost&) {
              return std::make_unique<FunctionDevice>("seat", handlers);
            }};
  }

 private:
  std::atomic<std::size_t> arrived_{0};
};

TEST(ManyVms, RunAtOnceInOneProcess) {
  Meeting meeting;
  std::array<CaptureSink, kMachines> consoles;
  std::array<std::unique_ptr<Vm>, kMachines> vms;
  for (std::size_t i = 0; i < kMachines; ++i) {
    VmConfig config = flat(GUEST_CODE(rendezvous));
    config.serial.output = &consoles[i];
    config.devices.push_back(meeting.seat('A' + i));
    vms[i] = create(std::move(config));
    if (!vms[i]) return;
  }
  std::array<StopInfo, kMachines> stops;
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < kMachines; ++i) {
    threads.emplace_back([&, i] { stops[i] = good(vms[i]->run({.deadline = kEnough})); });
  }
  for (std::thread& thread : threads) thread.join();
  for (std::size_t i = 0; i < kMachines; ++i) {
    EXPECT_EQ(stops[i].reason, StopReason::kHalted) << "machine " << i << ": " << stops[i].detail;
    EXPECT_EQ(consoles[i].text(), std::string(1, static_cast<char>('A' + i)));
    EXPECT_EQ(vms[i]->memory().read<std::uint32_t>(kCounter).value(), 'A' + i);
  }
}

}  // namespace
}  // namespace vmm
