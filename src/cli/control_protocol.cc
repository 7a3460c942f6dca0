#include "cli/control_protocol.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/size.h"
#include "cli/disk_rates.h"
#include "cli/stat_json.h"

namespace vmm::cli {
namespace {

using nlohmann::json;

// A refusal: one of the codes of docs/control.md, and a sentence.
struct Refusal {
  std::string_view code;
  std::string message;
};
using Outcome = tl::expected<json, Refusal>;

// Of one answer: it is to stay below what ask_line() takes.
constexpr std::uint64_t kMostExits = 16384;

tl::unexpected<Refusal> refuse(std::string_view code, std::string message) {
  return tl::unexpected<Refusal>(Refusal{code, std::move(message)});
}

std::string_view code_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kBadConfig:
      return "bad_arguments";
    case ErrorCode::kOutOfRange:
      return "not_found";
    case ErrorCode::kUnsupported:
      return "unsupported";
    case ErrorCode::kTimeout:
      return "timeout";
    case ErrorCode::kBadKernel:
    case ErrorCode::kNoKvm:
    case ErrorCode::kCancelled:
    case ErrorCode::kBadState:
    case ErrorCode::kResource:
    case ErrorCode::kIo:
      return "failed";
  }
  return "failed";
}

tl::unexpected<Refusal> refuse(const Error& error) {
  return refuse(code_of(error.code()), error.message());
}

Outcome done(const Result<void>& result) {
  if (!result) return refuse(result.error());
  return json::object();
}

json to_json(const BalloonStatus& balloon) {
  return {{"target", balloon.target},
          {"actual", balloon.actual},
          {"inflated_bytes", balloon.inflated_bytes},
          {"reported_bytes", balloon.reported_bytes},
          {"guest", balloon.guest}};
}

json to_json(const MemoryStatus& memory) {
  return {{"requested", memory.requested},
          {"plugged", memory.plugged},
          {"most", memory.most},
          {"block", memory.block}};
}

json to_json(const DiskStatus& disk) {
  return {{"name", disk.name},
          {"size", disk.size},
          {"requests", disk.requests},
          {"errors", disk.errors},
          {"queue_threads", disk.queue_threads}};
}

json to_json(const NetStatus& net) {
  return {{"name", net.name},
          {"mac", net.mac.text()},
          {"link", net.link},
          {"sent", net.sent},
          {"received", net.received},
          {"dropped", net.dropped},
          {"queue_threads", net.queue_threads}};
}

json to_json(const RemoteStatus& remote) {
  return {{"name", remote.name},
          {"place", remote.place},
          {"connected", remote.connected ? json(*remote.connected) : json(nullptr)},
          {"requests", remote.requests},
          {"errors", remote.errors},
          {"losses", remote.losses}};
}

json to_json(const WatchdogStatus& watchdog) {
  return {{"counting", watchdog.counting}, {"expirations", watchdog.expirations}};
}

json to_json(const ControlStatus& status) {
  json object = {
      {"state", status.state}, {"uptime_ms", status.uptime.count()}, {"resets", status.resets}};
  if (!status.vm) return object;
  const VmStatus& vm = *status.vm;
  object["cpus"] = vm.cpus;
  object["memory"] = vm.memory;
  object["broken_devices"] = vm.broken_devices;
  object["exits"] = status.stats.exits;
  object["balloon"] = vm.balloon ? to_json(*vm.balloon) : json(nullptr);
  object["plugged"] = vm.plugged ? to_json(*vm.plugged) : json(nullptr);
  object["disks"] = json::array();
  for (const DiskStatus& disk : vm.disks) object["disks"].push_back(to_json(disk));
  object["nets"] = json::array();
  for (const NetStatus& net : vm.nets) object["nets"].push_back(to_json(net));
  object["remotes"] = json::array();
  for (const RemoteStatus& remote : vm.remotes) object["remotes"].push_back(to_json(remote));
  object["watchdog"] = vm.watchdog ? to_json(*vm.watchdog) : json(nullptr);
  return object;
}

// The arguments of a request, each asked for once.
class Arguments {
 public:
  explicit Arguments(const json& object) : object_(object) {}

  tl::expected<std::string, Refusal> text(const char* key) const {
    const auto found = object_.find(key);
    if (found == object_.end() || !found->is_string()) {
      return refuse("bad_arguments", fmt::format("'{}' is missing, or is no string", key));
    }
    return found->get<std::string>();
  }
  tl::expected<bool, Refusal> flag(const char* key) const {
    const auto found = object_.find(key);
    if (found == object_.end() || !found->is_boolean()) {
      return refuse("bad_arguments",
                    fmt::format("'{}' is missing, or neither true nor false", key));
    }
    return found->get<bool>();
  }
  // A number of bytes, or a text as on the command line.
  tl::expected<std::uint64_t, Refusal> size(const char* key) const {
    const auto found = object_.find(key);
    if (found != object_.end() && found->is_number_unsigned()) return found->get<std::uint64_t>();
    if (found != object_.end() && found->is_string()) {
      const auto parsed = parse_size(found->get<std::string>());
      if (!parsed) return refuse("bad_arguments", parsed.error().message());
      return *parsed;
    }
    return refuse("bad_arguments", fmt::format("'{}' is missing, or is no size", key));
  }
  // `otherwise` when it is not given.
  tl::expected<std::uint64_t, Refusal> number(const char* key, std::uint64_t otherwise) const {
    const auto found = object_.find(key);
    if (found == object_.end()) return otherwise;
    if (!found->is_number_unsigned()) {
      return refuse("bad_arguments", fmt::format("'{}' is no number", key));
    }
    return found->get<std::uint64_t>();
  }
  bool has(const char* key) const { return object_.contains(key); }

 private:
  const json& object_;
};

Outcome balloon(ControlTarget& target, const Arguments& arguments) {
  const auto size = arguments.size("size");
  if (!size) return tl::unexpected<Refusal>(size.error());
  return done(target.control_balloon(*size));
}

Outcome memory(ControlTarget& target, const Arguments& arguments) {
  const auto size = arguments.size("size");
  if (!size) return tl::unexpected<Refusal>(size.error());
  return done(target.control_memory(*size));
}

Outcome resize(ControlTarget& target, const Arguments& arguments) {
  const auto disk = arguments.text("disk");
  if (!disk) return tl::unexpected<Refusal>(disk.error());
  std::optional<std::uint64_t> wanted;
  if (arguments.has("size")) {
    const auto size = arguments.size("size");
    if (!size) return tl::unexpected<Refusal>(size.error());
    wanted = *size;
  }
  const auto size = target.control_resize(*disk, wanted);
  if (!size) return refuse(size.error());
  return json{{"size", *size}};
}

Outcome limit(ControlTarget& target, const Arguments& arguments) {
  const auto disk = arguments.text("disk");
  if (!disk) return tl::unexpected<Refusal>(disk.error());
  const auto limits = arguments.text("limits");
  if (!limits) return tl::unexpected<Refusal>(limits.error());
  const auto rates = parse_disk_rates(*limits);
  if (!rates) return refuse(rates.error());
  return done(target.control_limit(*disk, *rates));
}

Outcome snapshot(ControlTarget& target, const Arguments& arguments) {
  const auto file = arguments.text("file");
  if (!file) return tl::unexpected<Refusal>(file.error());
  if (!arguments.has("base")) return done(target.control_snapshot(*file, {}));
  const auto base = arguments.text("base");
  if (!base) return tl::unexpected<Refusal>(base.error());
  return done(target.control_snapshot(*file, *base));
}

Outcome core(ControlTarget& target, const Arguments& arguments) {
  const auto file = arguments.text("file");
  if (!file) return tl::unexpected<Refusal>(file.error());
  return done(target.control_core(*file));
}

Outcome stat(ControlTarget& target, const Arguments&) {
  const ControlStatus status = target.control_status();
  json object = to_json(status);
  if (status.vm) add_statistics(status.stats, object);
  return object;
}

Outcome trace(ControlTarget& target, const Arguments& arguments) {
  const auto cpu = arguments.number("cpu", 0);
  if (!cpu) return tl::unexpected<Refusal>(cpu.error());
  const auto most = arguments.number("most", kMostExits);
  if (!most) return tl::unexpected<Refusal>(most.error());
  const auto exits =
      target.control_exits(static_cast<std::uint32_t>(std::min<std::uint64_t>(*cpu, UINT32_MAX)),
                           static_cast<std::size_t>(std::min(*most, kMostExits)));
  if (!exits) return refuse(exits.error());
  return to_json(*exits);
}

Outcome events(ControlTarget& target, const Arguments& arguments) {
  const auto most = arguments.number("most", kMostExits);
  if (!most) return tl::unexpected<Refusal>(most.error());
  const auto events = target.control_events(static_cast<std::size_t>(std::min(*most, kMostExits)));
  if (!events) return refuse(events.error());
  return to_json(*events);
}

Outcome sample(ControlTarget& target, const Arguments&) {
  const auto stacks = target.control_sample();
  if (!stacks) return refuse(stacks.error());
  return to_json(*stacks);
}

Outcome link(ControlTarget& target, const Arguments& arguments) {
  const auto net = arguments.text("net");
  if (!net) return tl::unexpected<Refusal>(net.error());
  const auto up = arguments.flag("up");
  if (!up) return tl::unexpected<Refusal>(up.error());
  return done(target.control_link(*net, *up));
}

Outcome gdb(ControlTarget& target, const Arguments& arguments) {
  const auto address = arguments.text("address");
  if (!address) return tl::unexpected<Refusal>(address.error());
  const auto place = target.control_gdb(*address);
  if (!place) return refuse(place.error());
  return json{{"address", *place}};
}

Outcome named(const Result<std::string>& name) {
  if (!name) return refuse(name.error());
  return json{{"name", *name}};
}

Outcome add_disk(ControlTarget& target, const Arguments& arguments) {
  const auto options = arguments.text("options");
  if (!options) return tl::unexpected<Refusal>(options.error());
  return named(target.control_add_disk(*options));
}

Outcome add_net(ControlTarget& target, const Arguments& arguments) {
  const auto options = arguments.text("options");
  if (!options) return tl::unexpected<Refusal>(options.error());
  return named(target.control_add_net(*options));
}

// fn(name, force) for a device that is to go.
template <typename Fn>
Outcome remove(const Arguments& arguments, const char* key, Fn&& fn) {
  const auto name = arguments.text(key);
  if (!name) return tl::unexpected<Refusal>(name.error());
  if (!arguments.has("force")) return done(fn(*name, false));
  const auto force = arguments.flag("force");
  if (!force) return tl::unexpected<Refusal>(force.error());
  return done(fn(*name, *force));
}

Outcome remove_disk(ControlTarget& target, const Arguments& arguments) {
  return remove(arguments, "disk", [&](const std::string& name, bool force) {
    return target.control_remove_disk(name, force);
  });
}

Outcome remove_net(ControlTarget& target, const Arguments& arguments) {
  return remove(arguments, "net", [&](const std::string& name, bool force) {
    return target.control_remove_net(name, force);
  });
}

struct CommandSpec {
  std::string_view name;
  std::array<std::string_view, 2> arguments;  // those that it knows; others are empty
  Outcome (*carry_out)(ControlTarget& target, const Arguments& arguments);
};

Outcome carry_out(const json& request, ControlTarget& target) {
  const std::array commands{
      CommandSpec{"status",
                  {},
                  [](ControlTarget& t, const Arguments&) -> Outcome {
                    return to_json(t.control_status());
                  }},
      CommandSpec{
          "pause", {}, [](ControlTarget& t, const Arguments&) { return done(t.control_pause()); }},
      CommandSpec{"resume",
                  {},
                  [](ControlTarget& t, const Arguments&) { return done(t.control_resume()); }},
      CommandSpec{
          "quit", {}, [](ControlTarget& t, const Arguments&) { return done(t.control_quit()); }},
      CommandSpec{
          "power-button",
          {},
          [](ControlTarget& t, const Arguments&) { return done(t.control_power_button()); }},
      CommandSpec{"balloon", {"size"}, balloon},
      CommandSpec{"memory", {"size"}, memory},
      CommandSpec{"disk-resize", {"disk", "size"}, resize},
      CommandSpec{"disk-limit", {"disk", "limits"}, limit},
      CommandSpec{"disk-add", {"options"}, add_disk},
      CommandSpec{"disk-remove", {"disk", "force"}, remove_disk},
      CommandSpec{"net-link", {"net", "up"}, link},
      CommandSpec{"gdb", {"address"}, gdb},
      CommandSpec{"net-add", {"options"}, add_net},
      CommandSpec{"net-remove", {"net", "force"}, remove_net},
      CommandSpec{"snapshot", {"file", "base"}, snapshot},
      CommandSpec{"core", {"file"}, core},
      CommandSpec{"stat", {}, stat},
      CommandSpec{"sample", {}, sample},
      CommandSpec{"trace", {"cpu", "most"}, trace},
      CommandSpec{"events", {"most"}, events},
  };
  const auto name = request.find("command");
  if (name == request.end() || !name->is_string()) {
    return refuse("bad_request", "'command' is missing, or is no string");
  }
  const auto found = std::find_if(commands.begin(), commands.end(),
                                  [&](const CommandSpec& spec) { return *name == spec.name; });
  if (found == commands.end()) {
    return refuse("unknown_command", fmt::format("There is no command {}", name->dump()));
  }
  const json arguments = request.value("arguments", json::object());
  if (!arguments.is_object()) return refuse("bad_request", "'arguments' is no object");
  for (const auto& [key, value] : arguments.items()) {
    const auto& known = found->arguments;
    if (key.empty() || std::find(known.begin(), known.end(), key) == known.end()) {
      return refuse("bad_arguments", fmt::format("'{}' is no argument of {}", key, found->name));
    }
  }
  return found->carry_out(target, Arguments(arguments));
}

// What is wrong with a request as such.
Outcome judge(const json& request) {
  if (request.is_discarded()) return refuse("bad_request", "The request is no JSON");
  if (!request.is_object()) return refuse("bad_request", "The request is no object");
  for (const auto& [key, value] : request.items()) {
    if (key != "id" && key != "command" && key != "arguments") {
      return refuse("bad_request", fmt::format("'{}' does not belong to a request", key));
    }
  }
  const auto id = request.find("id");
  if (id != request.end() && !id->is_string() && !id->is_number() && !id->is_null()) {
    return refuse("bad_request", "'id' is neither a string nor a number");
  }
  return json();
}

std::string text_of(json id, const Outcome& outcome) {
  json answer = {{"id", std::move(id)}};
  if (outcome) {
    answer["result"] = *outcome;
  } else {
    answer["error"] = {{"code", outcome.error().code}, {"message", outcome.error().message}};
  }
  // Names of files may be any bytes.
  return answer.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace

std::string answer_control(std::string_view line, ControlTarget& target) {
  const json request = json::parse(line, nullptr, /*allow_exceptions=*/false);
  const Outcome sound = judge(request);
  if (!sound) return text_of(nullptr, sound);
  return text_of(request.value("id", json()), carry_out(request, target));
}

std::string control_too_long() {
  return text_of(nullptr, refuse("too_long", "The request is longer than 65536 bytes"));
}

}  // namespace vmm::cli
