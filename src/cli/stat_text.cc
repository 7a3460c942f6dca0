#include "cli/stat_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/size.h"

namespace vmm::cli {
namespace {

using nlohmann::json;

std::uint64_t number(const json& object, const char* key) {
  return object.at(key).get<std::uint64_t>();
}

// A counter, and what it was.
struct Count {
  std::uint64_t now = 0, before = 0;
  // A machine that was started anew counts from zero.
  std::uint64_t more() const { return now >= before ? now - before : now; }
};

class Table {
 public:
  Table(const json& now, const json* before, double seconds)
      : now_(now), before_(before), seconds_(std::max(seconds, 0.001)) {}

  std::string text(std::size_t most_places) const {
    std::string text = head();
    text += cpus();
    text += exits();
    text += places(most_places);
    text += devices();
    return text;
  }

 private:
  // "      1234      56/s"
  std::string count(const Count& value) const {
    if (before_ == nullptr) return fmt::format("{:>14}", value.now);
    return fmt::format("{:>14} {:>10.0f}/s", value.now,
                       static_cast<double>(value.more()) / seconds_);
  }

  std::string head() const {
    std::string text =
        fmt::format("{}, {:.1f} s since the start, {} resets", now_.at("state").get<std::string>(),
                    static_cast<double>(number(now_, "uptime_ms")) / 1e3, number(now_, "resets"));
    return text + fmt::format(", {} of memory\n", format_size(number(now_, "memory")));
  }

  std::string cpus() const {
    std::string text = "\nCPU         load           exits\n";
    const json& list = now_.at("vcpus");
    for (std::size_t i = 0; i < list.size(); ++i) {
      const json* const old = old_cpu(i);
      const Count time{number(list[i], "cpu_time_ns"), old ? number(*old, "cpu_time_ns") : 0};
      const double span =
          before_ != nullptr ? seconds_ : static_cast<double>(number(now_, "uptime_ms")) / 1e3;
      const double load = static_cast<double>(time.more()) / 1e7 / std::max(span, 0.001);
      text += fmt::format("{:<6} {:>7.1f} % {}\n", i, load,
                          count({number(list[i], "exits"), old ? number(*old, "exits") : 0}));
    }
    return text;
  }

  const json* old_cpu(std::size_t i) const {
    if (before_ == nullptr || !before_->contains("vcpus")) return nullptr;
    const json& list = before_->at("vcpus");
    return i < list.size() ? &list[i] : nullptr;
  }

  std::uint64_t old_exits(const std::string& kind) const {
    if (before_ == nullptr || !before_->contains("exits")) return 0;
    return before_->at("exits").value(kind, std::uint64_t{0});
  }

  std::string exits() const {
    std::string text = "\nexits by kind\n";
    for (const auto& [kind, value] : now_.at("exits").items()) {
      text +=
          fmt::format("  {:<18} {}\n", kind, count({value.get<std::uint64_t>(), old_exits(kind)}));
    }
    return text;
  }

  // What tells one place from another.
  static std::string place_of(const json& access) {
    return fmt::format("{} {} {}", access.at("kind").get<std::string>(),
                       access.at("write").get<bool>() ? "write" : "read ",
                       access.at("address").get<std::string>());
  }

  std::string places(std::size_t most) const {
    std::map<std::string, std::uint64_t> old;
    if (before_ != nullptr && before_->contains("accesses")) {
      for (const json& access : before_->at("accesses")) {
        old[place_of(access)] = number(access, "count");
      }
    }
    struct Row {
      std::string place, device;
      Count count;
    };
    std::vector<Row> rows;
    for (const json& access : now_.at("accesses")) {
      std::string place = place_of(access);
      const auto found = old.find(place);
      const std::uint64_t was = found == old.end() ? 0 : found->second;
      rows.push_back({std::move(place),
                      access.at("device").get<std::string>(),
                      {number(access, "count"), was}});
    }
    if (before_ != nullptr) {
      std::stable_sort(rows.begin(), rows.end(),
                       [](const Row& a, const Row& b) { return a.count.more() > b.count.more(); });
    }
    if (rows.empty()) return {};
    std::string text = "\nexits by address\n";
    for (std::size_t i = 0; i < std::min(most, rows.size()); ++i) {
      text += fmt::format("  {:<28} {}  {}\n", rows[i].place, count(rows[i].count), rows[i].device);
    }
    if (number(now_, "unlisted_accesses") != 0) {
      text += fmt::format("  {:<28} {:>14}\n", "elsewhere", number(now_, "unlisted_accesses"));
    }
    return text;
  }

  // An older answer's device of that name.
  const json* old_device(const char* list, const json& device) const {
    if (before_ == nullptr || !before_->contains(list)) return nullptr;
    for (const json& old : before_->at(list)) {
      if (old.at("name") == device.at("name")) return &old;
    }
    return nullptr;
  }

  std::string device_line(const char* list, const json& device,
                          std::initializer_list<const char*> keys) const {
    std::string text = fmt::format("{:<8}", device.at("name").get<std::string>());
    const json* const old = old_device(list, device);
    for (const char* const key : keys) {
      const Count value{number(device, key), old ? number(*old, key) : 0};
      text += fmt::format("  {} {}", key, value.now);
      if (before_ != nullptr) {
        text += fmt::format(" ({:.0f}/s)", static_cast<double>(value.more()) / seconds_);
      }
    }
    return text + "\n";
  }

  std::string devices() const {
    std::string text;
    for (const json& disk : now_.at("disks")) {
      text += device_line("disks", disk, {"requests", "errors"});
    }
    for (const json& net : now_.at("nets")) {
      text += device_line("nets", net, {"sent", "received", "dropped"});
    }
    for (const json& remote : now_.at("remotes")) {
      text += device_line("remotes", remote, {"requests", "errors"});
    }
    if (!text.empty()) text = "\n" + text;
    std::uint64_t completed = 0;
    for (const auto& item : now_.at("completed_instructions").items()) {
      completed += item.value().get<std::uint64_t>();
    }
    return text + fmt::format(
                      "\nunclaimed accesses {}, kicks {}, held ticks {}, completed "
                      "instructions {}\n",
                      number(now_, "unclaimed_accesses"), number(now_, "kicks"),
                      number(now_, "held_ticks"), completed);
  }

  const json& now_;
  const json* before_;
  const double seconds_;
};

}  // namespace

std::string stat_text(const json& now, const json* before, double seconds,
                      std::size_t most_places) {
  if (!now.contains("vcpus")) return now.at("state").get<std::string>() + "\n";
  if (before != nullptr && !before->contains("vcpus")) before = nullptr;
  return Table(now, before, seconds).text(most_places);
}

}  // namespace vmm::cli
