#include "cli/ctl_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/size.h"
#include "cli/disk_rates.h"
#include "cli/exit_code.h"
#include "vmm/control/line_client.h"

namespace vmm::cli {
namespace {

using nlohmann::json;

// Longer than any command takes; a snapshot is as slow as its disk.
constexpr std::chrono::minutes kPatience{1};
constexpr std::chrono::minutes kSnapshotPatience{60};

std::string request_text(std::string_view command, const json& arguments = json::object()) {
  return json{{"id", 1}, {"command", command}, {"arguments", arguments}}.dump(
      -1, ' ', false, json::error_handler_t::replace);
}

tl::unexpected<Error> usage(std::string_view form) {
  return fail(ErrorCode::kBadConfig, "the command is written '{}'", form);
}

bool writes_file(std::string_view command) { return command == "snapshot" || command == "core"; }

Result<std::string> converse(const CtlCommand& command) {
  const std::string request = VMM_TRY(control_request(command.words));
  const std::string answer = VMM_TRY(ask_line(
      command.socket, request, writes_file(command.words.front()) ? kSnapshotPatience : kPatience));
  return control_answer_text(answer, command.json);
}

std::string bytes(const json& value) { return format_size(value.get<std::uint64_t>()); }

std::string balloon_text(const json& balloon) {
  std::string text =
      fmt::format("balloon  {} of {} wanted; given back {}, reported free {}\n",
                  bytes(balloon.at("actual")), bytes(balloon.at("target")),
                  bytes(balloon.at("inflated_bytes")), bytes(balloon.at("reported_bytes")));
  std::string guest;
  for (const char* const name : {"total", "free", "available", "caches"}) {
    const auto found = balloon.at("guest").find(name);
    if (found == balloon.at("guest").end()) continue;
    guest += fmt::format("{}{} {}", guest.empty() ? "" : ", ", name, bytes(*found));
  }
  return guest.empty() ? text : text + fmt::format("guest    {}\n", guest);
}

// Which threads serve a device's queues, where that is not the event loop's alone.
std::string threads_text(const json& device) {
  const auto threads = device.value("queue_threads", std::vector<std::uint32_t>());
  if (std::count(threads.begin(), threads.end(), 0U) == std::ssize(threads)) return {};
  std::string text = ", queues on I/O threads ";
  for (std::size_t i = 0; i < threads.size(); ++i) {
    text += fmt::format("{}{}", i == 0 ? "" : ":", threads[i]);
  }
  return text;
}

std::string status_text(const json& status) {
  const auto number = [&](const char* key) { return status.at(key).get<std::uint64_t>(); };
  std::string text = fmt::format("{}, {}.{:01} s since the start, {} resets\n",
                                 status.at("state").get<std::string>(), number("uptime_ms") / 1000,
                                 number("uptime_ms") % 1000 / 100, number("resets"));
  if (!status.contains("cpus")) return text;
  text +=
      fmt::format("machine  {} CPUs, {} of memory\n", number("cpus"), bytes(status.at("memory")));
  if (!status.at("plugged").is_null()) {
    const json& memory = status.at("plugged");
    text += fmt::format("memory   {} of {} wanted; {} at most\n", bytes(memory.at("plugged")),
                        bytes(memory.at("requested")), bytes(memory.at("most")));
  }
  if (!status.at("balloon").is_null()) text += balloon_text(status.at("balloon"));
  for (const json& disk : status.at("disks")) {
    text += fmt::format("{:<8} {}, {} requests, {} errors{}\n", disk.at("name").get<std::string>(),
                        bytes(disk.at("size")), disk.at("requests").get<std::uint64_t>(),
                        disk.at("errors").get<std::uint64_t>(), threads_text(disk));
  }
  for (const json& net : status.at("nets")) {
    text +=
        fmt::format("{:<8} {}, link {}, {} frames sent, {} received, {} dropped{}\n",
                    net.at("name").get<std::string>(), net.at("mac").get<std::string>(),
                    net.at("link").get<bool>() ? "up" : "down", net.at("sent").get<std::uint64_t>(),
                    net.at("received").get<std::uint64_t>(), net.at("dropped").get<std::uint64_t>(),
                    threads_text(net));
  }
  for (const json& remote : status.at("remotes")) {
    const json& connected = remote.at("connected");
    text += fmt::format(
        "{:<8} {} at {}, {} requests, {} errors, lost {} times\n",
        remote.at("name").get<std::string>(),
        connected.is_null()     ? "not in use"
        : connected.get<bool>() ? "served"
                                : "without its back-end",
        remote.at("place").get<std::string>(), remote.at("requests").get<std::uint64_t>(),
        remote.at("errors").get<std::uint64_t>(), remote.at("losses").get<std::uint64_t>());
  }
  std::string exits;
  for (const auto& [kind, count] : status.at("exits").items()) {
    exits += fmt::format("{}{} {}", exits.empty() ? "" : ", ", kind, count.get<std::uint64_t>());
  }
  if (!exits.empty()) text += fmt::format("exits    {}\n", exits);
  if (number("broken_devices") != 0) {
    text +=
        fmt::format("broken   virtio devices wanted a reset {} times\n", number("broken_devices"));
  }
  return text;
}

std::string result_text(const json& result) {
  if (result.contains("state")) return status_text(result);
  if (result.contains("address")) return result.at("address").get<std::string>() + "\n";
  if (result.contains("name")) return result.at("name").get<std::string>() + "\n";
  if (result.contains("size")) return bytes(result.at("size")) + "\n";
  return "";
}

// "disk add OPTIONS" and "net add OPTIONS".
Result<std::string> plug_request(const std::vector<std::string>& words) {
  if (words.size() != 3) return usage(words[0] + " add OPTIONS");
  return request_text(words[0] + "-add", {{"options", words[2]}});
}

// "disk remove NAME [force]" and "net remove NAME [force]".
Result<std::string> unplug_request(const std::vector<std::string>& words) {
  const bool force = words.size() == 4 && words[3] == "force";
  if (words.size() != 3 && !force) return usage(words[0] + " remove NAME [force]");
  json arguments = {{words[0], words[2]}};
  if (force) arguments["force"] = true;
  return request_text(words[0] + "-remove", arguments);
}

// The other process has a directory of its own.
Result<std::string> absolute_name(const std::string& file) {
  std::error_code error;
  std::string absolute = std::filesystem::absolute(file, error).string();
  if (file.empty() || error) return fail(ErrorCode::kBadConfig, "the file has no name");
  return absolute;
}

// "snapshot FILE [base BASE]" and "core FILE".
Result<std::string> file_request(const std::vector<std::string>& words) {
  const bool snapshot = words[0] == "snapshot";
  const bool increment = snapshot && words.size() == 4 && words[2] == "base";
  if (words.size() != 2 && !increment) {
    return usage(words[0] + " FILE" + (snapshot ? " [base BASE]" : ""));
  }
  json arguments = {{"file", VMM_TRY(absolute_name(words[1]))}};
  if (increment) arguments["base"] = VMM_TRY(absolute_name(words[3]));
  return request_text(words[0], arguments);
}

}  // namespace

Result<std::string> control_request(const std::vector<std::string>& words) {
  const std::string& command = words.front();
  if (command == "status" || command == "pause" || command == "resume" || command == "quit" ||
      command == "power-button") {
    if (words.size() != 1) return usage(command);
    return request_text(command);
  }
  if (writes_file(command)) return file_request(words);
  if (command == "balloon" || command == "memory") {
    if (words.size() != 2) return usage(command + " SIZE");
    return request_text(command, {{"size", VMM_TRY(parse_size(words[1]))}});
  }
  if ((command == "disk" || command == "net") && words.size() > 1) {
    if (words[1] == "add") return plug_request(words);
    if (words[1] == "remove") return unplug_request(words);
  }
  if (command == "disk") {
    if (words.size() == 4 && words[2] == "limit") {
      VMM_TRY(parse_disk_rates(words[3]));
      return request_text("disk-limit", {{"disk", words[1]}, {"limits", words[3]}});
    }
    if (words.size() < 3 || words.size() > 4 || words[2] != "resize") {
      return usage(
          "disk NAME resize [SIZE]', 'disk NAME limit LIMIT=N[,...]|none', 'disk add OPTIONS' or "
          "'disk remove NAME [force]");
    }
    json arguments = {{"disk", words[1]}};
    if (words.size() == 4) arguments["size"] = VMM_TRY(parse_size(words[3]));
    return request_text("disk-resize", arguments);
  }
  if (command == "net") {
    if (words.size() != 3 || (words[2] != "up" && words[2] != "down")) {
      return usage("net NAME up|down', 'net add OPTIONS' or 'net remove NAME [force]");
    }
    return request_text("net-link", {{"net", words[1]}, {"up", words[2] == "up"}});
  }
  if (command == "gdb") {
    if (words.size() != 2) return usage("gdb unix:PATH|tcp:127.0.0.1:PORT");
    return request_text("gdb", {{"address", words[1]}});
  }
  return fail(ErrorCode::kBadConfig,
              "there is no command '{}': status, pause, resume, quit, power-button, balloon, "
              "memory, disk, net, gdb, snapshot and core are known",
              command);
}

Result<std::string> control_answer_text(std::string_view answer, bool raw) {
  const json document = json::parse(answer, nullptr, /*allow_exceptions=*/false);
  try {
    if (document.contains("error")) {
      return fail(ErrorCode::kIo, "{}", document.at("error").at("message").get<std::string>());
    }
    const json& result = document.at("result");
    return raw ? result.dump() + "\n" : result_text(result);
  } catch (const json::exception&) {
    return fail(ErrorCode::kIo, "The answer cannot be understood: {}", answer.substr(0, 200));
  }
}

int ctl_command(const CtlCommand& command) {
  const Result<std::string> text = converse(command);
  if (!text) {
    std::fputs(fmt::format("vmm {}: {}\n", command.name, text.error().message()).c_str(), stderr);
    return exit_code(text.error());
  }
  std::fputs(text->c_str(), stdout);
  return kExitOk;
}

}  // namespace vmm::cli
