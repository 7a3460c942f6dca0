#include "vmm/kvm/pc_routing.h"

#include <linux/kvm.h>

namespace vmm::kvm {
namespace {

constexpr std::uint32_t kIsaIrqs = 16;
constexpr std::uint32_t kPicInputs = 8;
constexpr std::uint32_t kIoapicPins = 24;
constexpr std::uint32_t kCascade = 2;

}  // namespace

std::vector<GsiRoute> pc_routing() {
  std::vector<GsiRoute> routes;
  for (std::uint32_t gsi = 0; gsi < kIoapicPins; ++gsi) {
    if (gsi == kCascade) continue;
    if (gsi < kIsaIrqs) {
      const bool second = gsi >= kPicInputs;
      GsiRoute pic;
      pic.gsi = gsi;
      pic.chip = second ? KVM_IRQCHIP_PIC_SLAVE : KVM_IRQCHIP_PIC_MASTER;
      pic.pin = gsi % kPicInputs;
      routes.push_back(pic);
    }
    GsiRoute ioapic;
    ioapic.gsi = gsi;
    ioapic.chip = KVM_IRQCHIP_IOAPIC;
    ioapic.pin = gsi == 0 ? kCascade : gsi;
    routes.push_back(ioapic);
  }
  return routes;
}

}  // namespace vmm::kvm
