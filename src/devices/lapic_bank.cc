#include "devices/lapic_bank.h"

#include <utility>

#include "devices/state_io.h"

namespace vmm {

LapicBank::LapicBank(std::string id, std::uint32_t cpus, Ports ports)
    : id_(std::move(id)), ports_(std::move(ports)) {
  for (std::uint32_t i = 0; i < cpus; ++i) {
    const VcpuId cpu{i};
    lapics_.push_back(std::make_unique<Lapic>("lapic" + std::to_string(i), cpu,
                                              Lapic::Ports{.clock = ports_.clock,
                                                           .bus = this,
                                                           .attention =
                                                               [this, cpu] {
                                                                 if (ports_.attention)
                                                                   ports_.attention(cpu);
                                                               },
                                                           .tsc_khz = ports_.tsc_khz,
                                                           .x2apic = ports_.x2apic}));
  }
}

bool LapicBank::deliver(const ApicMessage& message) {
  if (message.delivery == ApicDelivery::kLowestPriority) return deliver_lowest(message);
  bool meant = false;
  for (const auto& lapic : lapics_) {
    if (!lapic->matches(message)) continue;
    lapic->accept(message);
    meant = true;
  }
  return meant;
}

// SDM volume 3, 11.6.2.4. Among equals the choice goes round, from the CPU after the last chosen.
bool LapicBank::deliver_lowest(const ApicMessage& message) {
  Lapic* best = nullptr;
  for (std::uint32_t i = 1; i <= count(); ++i) {
    Lapic& lapic = *lapics_[(last_lowest_ + i) % count()];
    if (!lapic.matches(message) || !lapic.accepts_lowest_priority()) continue;
    if (best != nullptr && lapic.arbitration_priority() >= best->arbitration_priority()) continue;
    best = &lapic;
  }
  if (best == nullptr) return false;
  last_lowest_ = static_cast<std::uint32_t>(best->cpu());
  best->accept(message);
  return true;
}

void LapicBank::send_ipi(VcpuId from, const ApicMessage& message) {
  switch (message.shorthand) {
    case ApicMessage::Shorthand::kNone:
      deliver(message);
      break;
    case ApicMessage::Shorthand::kSelf:
      lapic(from).accept(message);
      break;
    case ApicMessage::Shorthand::kAll:
    case ApicMessage::Shorthand::kOthers:
      for (const auto& lapic : lapics_) {
        const bool self = lapic->cpu() == from;
        if (self && message.shorthand == ApicMessage::Shorthand::kOthers) continue;
        lapic->accept(message);
      }
      break;
  }
}

void LapicBank::broadcast_eoi(VcpuId from, std::uint8_t vector) {
  if (ports_.on_eoi) ports_.on_eoi(from, vector);
}

[[gnu::hot]] void LapicBank::read(const IoAccess& access, std::span<std::byte> data) {
  if (static_cast<std::uint32_t>(access.vcpu) < count()) lapic(access.vcpu).read(access, data);
}

[[gnu::hot]] void LapicBank::write(const IoAccess& access, std::span<const std::byte> data) {
  if (static_cast<std::uint32_t>(access.vcpu) < count()) lapic(access.vcpu).write(access, data);
}

void LapicBank::reset() {
  last_lowest_ = 0;
  for (const auto& lapic : lapics_) lapic->reset();
}

void LapicBank::save(StateWriter& writer) const {
  State state;
  state.last_lowest = last_lowest_;
  for (const auto& lapic : lapics_) state.lapics.push_back(lapic->state());
  writer.put(state);
}

Result<void> LapicBank::restore(const StateReader& reader) {
  const State state = VMM_TRY(reader.get<State>());
  if (state.lapics.size() != lapics_.size() || state.last_lowest >= lapics_.size()) {
    return fail(ErrorCode::kBadState, "Saved state has {} local APICs, this machine {}",
                state.lapics.size(), lapics_.size());
  }
  last_lowest_ = state.last_lowest;
  for (std::size_t i = 0; i < lapics_.size(); ++i) lapics_[i]->set_state(state.lapics[i]);
  return {};
}

}  // namespace vmm
