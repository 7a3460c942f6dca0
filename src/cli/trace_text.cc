#include "cli/trace_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

namespace vmm::cli {
namespace {

using nlohmann::json;

// Of a CPU.
struct Exit {
  std::size_t cpu = 0;
  std::int64_t time = 0, duration = 0;
  std::uint64_t number = 0;
  const json* exit = nullptr;
};

std::int64_t time_of(const json& one) { return one.at("time_ns").get<std::int64_t>(); }

std::vector<Exit> exits_of(std::span<const json> cpus) {
  std::vector<Exit> exits;
  for (std::size_t cpu = 0; cpu < cpus.size(); ++cpu) {
    for (const json& exit : cpus[cpu].at("exits")) {
      exits.push_back({.cpu = cpu,
                       .time = time_of(exit),
                       .duration = exit.at("duration_ns").get<std::int64_t>(),
                       .number = exit.at("number").get<std::uint64_t>(),
                       .exit = &exit});
    }
  }
  std::stable_sort(exits.begin(), exits.end(),
                   [](const Exit& a, const Exit& b) { return a.time < b.time; });
  return exits;
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

std::string symbol_of(const json& one) {
  return one.contains("symbol") ? fmt::format(" <{}>", text_at(one, "symbol")) : std::string();
}

std::string text_of(const Exit& of) {
  const json& exit = *of.exit;
  std::string text = fmt::format("vcpu{} #{} {}", of.cpu, of.number, name_of(exit));
  if (exit.contains("width")) text += fmt::format(" width {}", exit.at("width").get<int>());
  if (exit.contains("value")) text += " value " + text_at(exit, "value");
  if (exit.contains("rip")) text += " rip " + text_at(exit, "rip");
  text += symbol_of(exit);
  if (of.duration != 0) text += fmt::format(" {:.1f} us", static_cast<double>(of.duration) / 1e3);
  return text;
}

double microseconds(std::int64_t time) { return static_cast<double>(time) / 1e3; }

json slice(std::string name, std::string_view category, std::int64_t begin, std::int64_t duration,
           std::size_t cpu) {
  return {{"name", std::move(name)},
          {"cat", category},
          {"ph", "X"},
          {"ts", microseconds(begin)},
          {"dur", microseconds(std::max<std::int64_t>(duration, 0))},
          {"pid", 1},
          {"tid", cpu}};
}

json label(const char* what, std::size_t track, std::string name) {
  return {{"name", what}, {"ph", "M"},    {"ts", 0},
          {"pid", 1},     {"tid", track}, {"args", {{"name", std::move(name)}}}};
}

// A moment on a track.
json instant(std::string name, std::string_view category, std::int64_t time, std::size_t track) {
  return {{"name", std::move(name)},  {"cat", category}, {"ph", "i"},   {"s", "t"},
          {"ts", microseconds(time)}, {"pid", 1},        {"tid", track}};
}

// One end of a span, which may overlap others of its track.
json end_of_span(const char* phase, const std::string& name, const std::string& id,
                 std::int64_t time, std::size_t track) {
  return {{"name", name}, {"cat", "request"}, {"ph", phase}, {"id", id}, {"ts", microseconds(time)},
          {"pid", 1},     {"tid", track}};
}

// Slices of the CPUs' tracks.
void add_exits(std::span<const Exit> exits, std::int64_t start, std::size_t cpus, json& list) {
  std::vector<const Exit*> last(cpus, nullptr);
  for (const Exit& exit : exits) {
    const std::int64_t time = exit.time - start;
    if (const Exit* const before = std::exchange(last[exit.cpu], &exit)) {
      const std::int64_t left = before->time + before->duration - start;
      if (before->number + 1 == exit.number && left < time) {
        list.push_back(slice("guest", "guest", left, time - left, exit.cpu));
      }
    }
    json one =
        slice(name_of(*exit.exit), text_at(*exit.exit, "kind"), time, exit.duration, exit.cpu);
    json arguments = json::object();
    for (const char* const key : {"number", "width", "value", "rip", "symbol"}) {
      if (exit.exit->contains(key)) arguments[key] = exit.exit->at(key);
    }
    one["args"] = std::move(arguments);
    list.push_back(std::move(one));
  }
}

// The tracks behind the CPUs': interrupts on their way, and each device's requests.
void add_events(const json& events, std::int64_t start, std::size_t cpus, json& list) {
  const std::size_t wires = cpus;
  std::map<std::string, std::size_t> devices;
  std::map<std::string, const json*> open;  // requests that wait for their answer
  bool wired = false;
  for (const json& event : events.at("events")) {
    const std::int64_t time = time_of(event) - start;
    const std::string kind = text_at(event, "kind");
    const bool is_request = kind == "request";
    if (is_request || kind == "answer") {
      const std::string device = text_at(event, "device");
      const auto [track, added] = devices.try_emplace(device, wires + 1 + devices.size());
      if (added) list.push_back(label("thread_name", track->second, device));
      const int queue = event.at("queue").get<int>();
      const int head = event.at("head").get<int>();
      const std::string name = fmt::format("queue {} head {}", queue, head);
      const std::string id = fmt::format("{}/{}/{}", device, queue, head);
      if (is_request) {
        open[id] = &event;
        continue;
      }
      const auto begun = open.find(id);
      if (begun == open.end()) continue;
      list.push_back(end_of_span("b", name, id, time_of(*begun->second) - start, track->second));
      json end = end_of_span("e", name, id, time, track->second);
      end["args"] = {{"written", event.at("written")}};
      list.push_back(std::move(end));
      open.erase(begun);
    } else if (event.contains("cpu")) {
      list.push_back(
          instant(text_at(event, "text"), "irq", time, event.at("cpu").get<std::size_t>()));
    } else {
      if (!std::exchange(wired, true)) list.push_back(label("thread_name", wires, "interrupts"));
      list.push_back(instant(text_at(event, "text"), "irq", time, wires));
    }
  }
}

}  // namespace

std::string trace_text(std::span<const json> cpus, const json& events) {
  std::vector<std::pair<std::int64_t, std::string>> lines;
  for (const Exit& exit : exits_of(cpus)) lines.emplace_back(exit.time, text_of(exit));
  for (const json& event : events.at("events")) {
    lines.emplace_back(time_of(event), text_at(event, "text") + symbol_of(event));
  }
  std::stable_sort(lines.begin(), lines.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::string text;
  for (const auto& [time, line] : lines) {
    text +=
        fmt::format("{:>12.6f} {}\n", static_cast<double>(time - lines.back().first) / 1e9, line);
  }
  return text;
}

std::string chrome_trace(std::span<const json> cpus, const json& events) {
  const std::vector<Exit> exits = exits_of(cpus);
  json list = json::array();
  list.push_back(label("process_name", 0, "vmm"));
  for (std::size_t cpu = 0; cpu < cpus.size(); ++cpu) {
    list.push_back(label("thread_name", cpu, fmt::format("vCPU {}", cpu)));
  }
  // Time begins with whatever is oldest.
  std::int64_t start =
      exits.empty() ? std::numeric_limits<std::int64_t>::max() : exits.front().time;
  for (const json& event : events.at("events")) start = std::min(start, time_of(event));
  add_exits(exits, start, cpus.size(), list);
  add_events(events, start, cpus.size(), list);
  const json document = {{"displayTimeUnit", "ns"}, {"traceEvents", std::move(list)}};
  return document.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace vmm::cli
