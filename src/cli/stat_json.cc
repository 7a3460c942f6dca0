#include "cli/stat_json.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace vmm::cli {
namespace {

using nlohmann::json;

// A client's numbers may have 53 bits only.
std::string hex(std::uint64_t value) { return fmt::format("{:#x}", value); }

}  // namespace

void add_statistics(const VmStats& stats, json& answer) {
  answer["vcpus"] = json::array();
  for (const CpuStats& cpu : stats.cpus) {
    answer["vcpus"].push_back(
        {{"exits", cpu.exits}, {"kicks", cpu.kicks}, {"cpu_time_ns", cpu.cpu_time.count()}});
  }
  answer["accesses"] = json::array();
  for (const AccessStats& access : stats.accesses) {
    answer["accesses"].push_back({{"kind", access.kind},
                                  {"write", access.is_write},
                                  {"address", hex(access.address)},
                                  {"device", access.device},
                                  {"count", access.count}});
  }
  answer["unlisted_accesses"] = stats.unlisted_accesses;
  answer["unclaimed_accesses"] = stats.unclaimed;
  answer["completed_instructions"] = stats.completed_by_mnemonic;
  answer["executed_ahead"] = stats.executed_ahead;
  answer["interpreted"] = stats.interpreted;
  answer["kicks"] = stats.kicks;
  answer["held_ticks"] = stats.held_ticks;
}

json to_json(const ControlExits& exits) {
  json list = json::array();
  for (std::size_t i = 0; i < exits.records.size(); ++i) {
    const ExitRecord& record = exits.records[i];
    json one = {{"number", record.number},
                {"time_ns", record.time},
                {"duration_ns", record.duration},
                {"kind", record.name()}};
    if (record.is_access()) {
      one["write"] = record.is_write;
      one["width"] = record.width;
    }
    if (record.is_access() || record.address != 0) one["address"] = hex(record.address);
    if (record.is_access() || record.value != 0) one["value"] = hex(record.value);
    if (record.rip != 0) one["rip"] = hex(record.rip);
    if (i < exits.symbols.size() && !exits.symbols[i].empty()) one["symbol"] = exits.symbols[i];
    list.push_back(std::move(one));
  }
  return {{"cpus", exits.cpus}, {"exits", std::move(list)}};
}

json to_json(const ControlEvents& events) {
  json list = json::array();
  for (std::size_t i = 0; i < events.records.size(); ++i) {
    const DeviceEvent& record = events.records[i];
    json one = {{"number", record.number},
                {"time_ns", record.time},
                {"kind", device_event_name(record.kind)},
                {"text", device_event_text(record)}};
    switch (record.kind) {
      case DeviceEventKind::kLine:
        one["gsi"] = record.address;
        one["raised"] = record.value != 0;
        break;
      case DeviceEventKind::kMessage:
        one["address"] = hex(record.address);
        one["data"] = hex(record.value);
        break;
      case DeviceEventKind::kInterrupt:
        one["vector"] = record.value;
        [[fallthrough]];
      case DeviceEventKind::kNmi:
        one["cpu"] = record.cpu;
        if (record.rip() != 0) one["rip"] = hex(record.rip());
        break;
      case DeviceEventKind::kAnswer:
        one["written"] = record.value;
        [[fallthrough]];
      case DeviceEventKind::kRequest:
        one["device"] = record.device;
        one["queue"] = record.queue;
        one["head"] = record.head;
        break;
    }
    if (i < events.symbols.size() && !events.symbols[i].empty()) one["symbol"] = events.symbols[i];
    list.push_back(std::move(one));
  }
  return {{"events", std::move(list)}};
}

json to_json(const std::vector<ControlStack>& stacks) {
  json list = json::array();
  for (const ControlStack& stack : stacks) {
    list.push_back({{"cpu", stack.cpu}, {"user", stack.user}, {"frames", stack.frames}});
  }
  return {{"stacks", std::move(list)}};
}

}  // namespace vmm::cli
