#include "cli/trace_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

namespace vmm::cli {
namespace {

using nlohmann::json;

struct Event {
  std::size_t cpu = 0;
  std::int64_t time = 0, duration = 0;
  std::uint64_t number = 0;
  const json* exit = nullptr;
};

std::vector<Event> events_of(std::span<const json> cpus) {
  std::vector<Event> events;
  for (std::size_t cpu = 0; cpu < cpus.size(); ++cpu) {
    for (const json& exit : cpus[cpu].at("exits")) {
      events.push_back({.cpu = cpu,
                        .time = exit.at("time_ns").get<std::int64_t>(),
                        .duration = exit.at("duration_ns").get<std::int64_t>(),
                        .number = exit.at("number").get<std::uint64_t>(),
                        .exit = &exit});
    }
  }
  std::stable_sort(events.begin(), events.end(),
                   [](const Event& a, const Event& b) { return a.time < b.time; });
  return events;
}

std::string text_at(const json& exit, const char* key) {
  return exit.contains(key) ? exit.at(key).get<std::string>() : std::string();
}

// "pio write 0x3f8"
std::string name_of(const json& exit) {
  std::string name = exit.at("kind").get<std::string>();
  if (exit.contains("write")) name += exit.at("write").get<bool>() ? " write" : " read";
  if (exit.contains("address")) name += " " + text_at(exit, "address");
  return name;
}

std::string line_of(const Event& event, std::int64_t end) {
  const json& exit = *event.exit;
  std::string line =
      fmt::format("{:>12.6f} vcpu{} #{} {}", static_cast<double>(event.time - end) / 1e9, event.cpu,
                  event.number, name_of(exit));
  if (exit.contains("width")) line += fmt::format(" width {}", exit.at("width").get<int>());
  if (exit.contains("value")) line += " value " + text_at(exit, "value");
  if (exit.contains("rip")) line += " rip " + text_at(exit, "rip");
  if (exit.contains("symbol")) line += fmt::format(" <{}>", text_at(exit, "symbol"));
  if (event.duration != 0) {
    line += fmt::format(" {:.1f} us", static_cast<double>(event.duration) / 1e3);
  }
  return line + "\n";
}

json slice(std::string name, std::string_view category, std::int64_t begin, std::int64_t duration,
           std::size_t cpu) {
  return {{"name", std::move(name)},
          {"cat", category},
          {"ph", "X"},
          {"ts", static_cast<double>(begin) / 1e3},  // microseconds
          {"dur", static_cast<double>(std::max<std::int64_t>(duration, 0)) / 1e3},
          {"pid", 1},
          {"tid", cpu}};
}

json label(const char* what, std::size_t cpu, std::string name) {
  return {{"name", what}, {"ph", "M"},  {"ts", 0},
          {"pid", 1},     {"tid", cpu}, {"args", {{"name", std::move(name)}}}};
}

}  // namespace

std::string trace_text(std::span<const json> cpus) {
  const std::vector<Event> events = events_of(cpus);
  std::string text;
  for (const Event& event : events) text += line_of(event, events.back().time);
  return text;
}

std::string chrome_trace(std::span<const json> cpus) {
  const std::vector<Event> events = events_of(cpus);
  json list = json::array();
  list.push_back(label("process_name", 0, "vmm"));
  for (std::size_t cpu = 0; cpu < cpus.size(); ++cpu) {
    list.push_back(label("thread_name", cpu, fmt::format("vCPU {}", cpu)));
  }
  std::vector<const Event*> last(cpus.size(), nullptr);
  for (const Event& event : events) {
    const std::int64_t start = event.time - events.front().time;
    if (const Event* const before = std::exchange(last[event.cpu], &event)) {
      const std::int64_t left = before->time + before->duration - events.front().time;
      if (before->number + 1 == event.number && left < start) {
        list.push_back(slice("guest", "guest", left, start - left, event.cpu));
      }
    }
    json exit =
        slice(name_of(*event.exit), text_at(*event.exit, "kind"), start, event.duration, event.cpu);
    json arguments = json::object();
    for (const char* const key : {"number", "width", "value", "rip", "symbol"}) {
      if (event.exit->contains(key)) arguments[key] = event.exit->at(key);
    }
    exit["args"] = std::move(arguments);
    list.push_back(std::move(exit));
  }
  const json document = {{"displayTimeUnit", "ns"}, {"traceEvents", std::move(list)}};
  return document.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace vmm::cli
