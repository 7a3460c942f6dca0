// A guest that finds a PCI function, moves its registers, and takes its interrupts.
#include <algorithm>
#include <atomic>
#include <future>

#include "tests/kvm/irqchip/irqchip_fixture.h"
#include "tests/support/pci_test_function.h"
#include "vmm/event_loop.h"
#include "vmm/gsi_table.h"
#include "vmm/kvm/irqfd.h"
#include "vmm/kvm/pc_routing.h"
#include "vmm/msi_routes.h"
#include "vmm/pci_bus.h"

namespace vmm::test {
namespace {

using pci::HostBridge;
using testing::ElementsAre;

constexpr std::uint32_t kMoved = 0xd000'0000;
constexpr std::uint32_t kFirstBar = 0xc000'0000, kMsixBar = 0xc000'1000;  // from power-on

class PciKvm : public IrqchipKvm {
 protected:
  void SetUp() override {
    IrqchipKvm::SetUp();
    if (!machine) return;
    const auto bridge = make_device<HostBridge>("pci", nullptr);
    ASSERT_TRUE(
        machine->pio().insert({HostBridge::kPort, HostBridge::kPortSize, Widths{1, 2, 4}}, bridge));
    if (GetParam() != IrqchipMode::kUser) make_routes();
    bus_ = std::make_unique<PciBus>(machine->mmio(), bridge, machine->irqs(), &machine->messages(),
                                    routes_.get());
    const auto seat = bus_->next_seat();
    ASSERT_TRUE(seat);
    ASSERT_TRUE(bus_->attach(*seat, make_device<PciTestFunction>("function", seat->ports)));
  }
  void TearDown() override {
    machine.reset();  // its thread first
    bus_.reset();
  }

  static Step select(std::size_t offset) {
    return out_word(HostBridge::kPort, static_cast<std::uint32_t>(0x8000'0800U | offset));
  }
  static std::vector<Step> write_config(std::size_t offset, std::uint32_t value) {
    return {select(offset), out_word(HostBridge::kPort + 4, value)};
  }
  static std::vector<Step> report_config(std::size_t offset) {
    return {select(offset), report_port_word(HostBridge::kPort + 4)};
  }
  static std::vector<Step> moved_and_on() {
    return join({write_config(pci::kFirstBar, kMoved),
                 write_config(pci::kCommand, pci::kMemorySpace | pci::kBusMaster)});
  }

  // As a machine has them, but that they are counted.
  void make_routes() {
    const kvm::VmFd& vm = machine->vm();
    table_ = std::make_unique<GsiTable>(
        [&vm](auto routes) { return vm.set_gsi_routing(routes); },
        GetParam() == IrqchipMode::kKernel ? kvm::pc_routing() : std::vector<kvm::GsiRoute>());
    routes_ = std::make_unique<MsiRoutes>(
        MsiRoutes::Host{.signal =
                            [this, &vm](const MsiMessage& message) {
                              ++signals_;
                              (void)vm.signal_msi(message.address, message.data);
                            },
                        .set_routes = [this](auto routes) { return table_->set_messages(routes); },
                        .attach =
                            [this, &vm](int fd, std::uint32_t gsi) {
                              ++irqfds_;
                              return kvm::attach_irqfd(vm, fd, gsi);
                            },
                        .gsis = 8},
        *loop_);
  }
  void wait_for_loop() {
    for (int round = 0; round < 2; ++round) {
      std::promise<void> done;
      loop_->post([&done] { done.set_value(); });
      done.get_future().wait();
    }
  }

  std::unique_ptr<EventLoop> loop_ = EventLoop::create().value();
  std::unique_ptr<GsiTable> table_;
  std::unique_ptr<MsiRoutes> routes_;
  std::atomic<std::uint32_t> signals_{0}, irqfds_{0};
  std::unique_ptr<PciBus> bus_;
};

INSTANTIATE_TEST_SUITE_P(Pci, PciKvm,
                         testing::Values(IrqchipMode::kKernel, IrqchipMode::kSplit,
                                         IrqchipMode::kUser),
                         mode_name);

TEST_P(PciKvm, Function_isFoundAndMoved) {
  machine->start(join({report_config(pci::kVendorId),
                       report_config(pci::kFirstBar),
                       {store(kFirstBar, 0x1234)},
                       moved_and_on(),
                       {report_word(kMoved), report_word(kFirstBar)},
                       write_config(pci::kCommand, 0),
                       {report_word(kMoved)}}));
  EXPECT_THAT(machine->finish_without_eois(),
              ElementsAre("report 0x56781234", "report 0xc0000000", "report 0x1234",
                          "report 0xffffffff", "report 0xffffffff", "end"));
}

TEST_P(PciKvm, MessageOfAVector_arrives) {
  machine->start(
      join({apic_on(),
            moved_and_on(),
            {store(kMsixBar, 0xfee0'0000), store(kMsixBar + 4, 0), store(kMsixBar + 8, 0x61)},
            write_config(PciTestFunction::kMsixCapability, std::uint32_t{pci::Msix::kEnable} << 16),
            // Still masked: pending until it is not.
            {store(kMoved + PciTestFunction::kTrigger, 0), report_word(kMsixBar + 2048),
             store(kMsixBar + 12, 0), wait(), report_word(kMsixBar + 2048),
             store(kMoved + PciTestFunction::kTrigger, 0), wait(), report(1)}}));
  EXPECT_THAT(machine->finish_without_eois(),
              ElementsAre("report 0x1", "interrupt 0x61", "report 0x0", "interrupt 0x61",
                          "report 0x1", "end"));
}

TEST_P(PciKvm, MessageThatComesOften_goesOnByAnIrqfd) {
  if (routes_ == nullptr) GTEST_SKIP() << "the local APICs are not KVM's";
  const std::vector<Step> once{store(kMoved + PciTestFunction::kTrigger, 0), wait()};
  std::vector<Step> often;
  for (std::uint32_t i = 0; i < MsiRoutes::kWorth; ++i) often = join({often, once});
  machine->on_report(1, [this] { wait_for_loop(); });
  std::uint32_t by_irqfd = 0;
  machine->on_report(2, [&] { by_irqfd = signals_; });
  machine->start(
      join({apic_on(),
            moved_and_on(),
            {store(kMsixBar, 0xfee0'0000), store(kMsixBar + 4, 0), store(kMsixBar + 8, 0x61),
             store(kMsixBar + 12, 0)},
            write_config(PciTestFunction::kMsixCapability, std::uint32_t{pci::Msix::kEnable} << 16),
            often,
            {report(1)},
            once,
            {report(2), store(kMsixBar + 8, 0x62)},
            once,
            {report(3)}}));
  const Events events = machine->finish_without_eois();
  EXPECT_EQ(std::count(events.begin(), events.end(), "interrupt 0x61"), MsiRoutes::kWorth + 1);
  EXPECT_EQ(irqfds_, 1U);
  EXPECT_EQ(by_irqfd, MsiRoutes::kWorth) << "the next one went another way";
  EXPECT_EQ(signals_, MsiRoutes::kWorth + 1) << "the other message is no route's";
  const Events last(events.end() - 3, events.end());
  EXPECT_THAT(last, ElementsAre("interrupt 0x62", "report 0x3", "end"));
}

TEST_P(PciKvm, Wire_reachesTheIoapic) {
  machine->start(join({apic_on(),
                       moved_and_on(),
                       entry(17, kLevel | 0x67),
                       {store(kMoved + PciTestFunction::kWire, 1), wait(), report(1),
                        store(kMoved + PciTestFunction::kWire, 0), interrupts_on(), loop(1000),
                        interrupts_off(), report(2)}}));
  // Its handler does not silence the device: it comes again.
  EXPECT_THAT(machine->finish_without_eois(),
              ElementsAre("interrupt 0x67", "report 0x1", "interrupt 0x67", "report 0x2", "end"));
}

TEST_P(PciKvm, Wire_reachesThePic) {
  machine->start(join({pic_on(),
                       moved_and_on(),
                       report_config(pci::kInterruptLine),
                       {store(kMoved + PciTestFunction::kWire, 1), wait(),
                        store(kMoved + PciTestFunction::kWire, 0), report(1)}}));
  EXPECT_THAT(machine->finish_without_eois(),
              ElementsAre("report 0x10b", "interrupt 0x3b", "report 0x1", "end"));
}

}  // namespace
}  // namespace vmm::test
