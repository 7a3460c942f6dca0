#include "cli/inspect_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/exit_code.h"
#include "vmm/loader/describe.h"
#include "vmm/snapshot/snapshot.h"

namespace vmm::cli {
namespace {

// Whether any way to boot is open, from the description for programs.
bool can_boot(const std::string& description) {
  const auto document = nlohmann::json::parse(description, nullptr, false);
  if (!document.is_object() || !document.contains("boot")) return false;
  const auto& ways = document["boot"];
  return std::any_of(ways.begin(), ways.end(),
                     [](const auto& way) { return way.value("possible", false); });
}

}  // namespace

namespace {

// Everything but memory, which is read and compared.
int inspect_snapshot(const std::string& file) {
  const auto snapshot = Snapshot::open(file);
  const Result<void> sound =
      snapshot ? (*snapshot)->verify() : tl::unexpected<Error>(snapshot.error());
  if (!sound) {
    fmt::print(stderr, "vmm inspect: {}\n", sound.error().message());
    return kExitBadKernel;
  }
  auto document = nlohmann::json::parse((*snapshot)->to_json());
  const Snapshot::File& from = *(*snapshot)->file();
  document["file"] = {{"id", from.id}, {"stored", from.stored}};
  if (!from.base.empty()) document["file"]["base"] = {{"name", from.base}, {"id", from.base_id}};
  fmt::print("{}\n", document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
  return kExitOk;
}

}  // namespace

int inspect_command(const InspectCommand& command) {
  if (Snapshot::is_snapshot(command.file)) return inspect_snapshot(command.file);
  const auto image = loader::KernelImage::open(command.file);
  if (!image) {
    if (command.json) {
      const nlohmann::json error{{"name", command.file}, {"error", image.error().message()}};
      fmt::print("{}\n", error.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
    }
    fmt::print(stderr, "vmm inspect: {}\n", image.error().message());
    return kExitBadKernel;
  }
  const std::string json = loader::describe_json(*image);
  std::fputs(command.json ? (json + "\n").c_str() : loader::describe_text(*image).c_str(), stdout);
  return can_boot(json) ? kExitOk : kExitBadKernel;
}

}  // namespace vmm::cli
