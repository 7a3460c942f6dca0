#include "vmm/collect_stats.h"

#include <algorithm>

namespace vmm {
namespace {

void add_exits(std::span<const std::unique_ptr<ExitDispatch>> dispatches, VmStats& stats) {
  for (std::size_t kind = 0; kind < kExitNames.size(); ++kind) {
    std::uint64_t count = 0;
    for (const auto& dispatch : dispatches) count += dispatch->count(kind);
    if (count != 0) stats.exits.emplace(kExitNames[kind], count);
  }
  for (const auto& dispatch : dispatches) {
    dispatch->add_completed(stats.completed_by_mnemonic);
    stats.executed_ahead += dispatch->executed_ahead();
    stats.interpreted += dispatch->interpreted();
  }
  for (const auto& [mnemonic, count] : stats.completed_by_mnemonic)
    stats.completed_instructions += count;
}

void add_accesses(const Machine& machine, std::span<const std::unique_ptr<ExitDispatch>> dispatches,
                  VmStats& stats) {
  std::map<ExitPlace, std::uint64_t> places;
  for (const auto& dispatch : dispatches) {
    dispatch->places().add_to(places);
    stats.unlisted_accesses += dispatch->places().unlisted();
  }
  for (const auto& [place, count] : places) {
    AccessStats access{.kind = std::string(kExitNames[place.kind]),
                       .is_write = place.is_write,
                       .address = place.address,
                       .device = {},
                       .count = count};
    if (access.kind == "pio") access.device = machine.pio.device_at(place.address);
    if (access.kind == "mmio") access.device = machine.mmio.device_at(place.address);
    stats.accesses.push_back(std::move(access));
  }
  std::stable_sort(stats.accesses.begin(), stats.accesses.end(),
                   [](const AccessStats& a, const AccessStats& b) { return a.count > b.count; });
}

}  // namespace

VmStats collect_stats(const Machine& machine, std::span<const std::unique_ptr<Vcpu>> vcpus,
                      std::span<const std::unique_ptr<ExitDispatch>> dispatches) {
  VmStats stats;
  add_exits(dispatches, stats);
  add_accesses(machine, dispatches, stats);
  for (const Bus* bus : {&machine.pio, &machine.mmio}) {
    const BusStats counts = bus->stats();
    stats.unclaimed += counts.unclaimed_reads + counts.unclaimed_writes + counts.refused_reads +
                       counts.refused_writes;
  }
  for (const auto& vcpu : vcpus) {
    stats.cpus.push_back(
        {.exits = vcpu->exits(), .kicks = vcpu->kicks(), .cpu_time = vcpu->cpu_time()});
    stats.kicks += vcpu->kicks();
  }
  if (machine.user_irqchip != nullptr) stats.held_ticks = machine.user_irqchip->held_ticks();
  return stats;
}

}  // namespace vmm
