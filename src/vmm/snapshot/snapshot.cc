#include "vmm/snapshot/snapshot.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "vmm/interpreter/line_table.h"
#include "vmm/snapshot/machine_state.h"
#include "vmm/snapshot/ram_image.h"
#include "vmm/snapshot/snapshot_file.h"

namespace vmm {
namespace {

// Binary values as hexadecimal text: JSON has none.
void show_bytes(nlohmann::json& value) {
  if (value.is_binary()) {
    std::string text;
    for (const std::uint8_t byte : value.get_binary()) text += fmt::format("{:02x}", byte);
    value = std::move(text);
  } else if (value.is_structured()) {
    for (nlohmann::json& item : value) show_bytes(item);
  }
}

std::string text_of(const SnapshotId& id) {
  return fmt::format("{:08x}{:08x}{:08x}{:016x}", id.header, id.state, id.pages, id.size);
}

}  // namespace

Snapshot::Snapshot(WholeState state, RamImage ram, std::vector<QuirkOverride> quirks,
                   std::shared_ptr<interpreter::SharedLines> lines)
    : state_(std::make_unique<const WholeState>(std::move(state))),
      ram_(std::make_unique<const RamImage>(std::move(ram))),
      quirks_(std::move(quirks)),
      lines_(std::move(lines)) {}

Snapshot::~Snapshot() = default;

Result<std::shared_ptr<const Snapshot>> Snapshot::open(const std::string& path) {
  LoadedSnapshot loaded = VMM_TRY(load_snapshot(path));
  auto snapshot = std::make_shared<Snapshot>(std::move(loaded.state), std::move(loaded.ram));
  snapshot->id_ = loaded.id;
  File file;
  file.id = text_of(loaded.id);
  file.stored = loaded.own_pages * RamImage::kPage;
  if (loaded.base) {
    file.base = loaded.base->name;
    file.base_id = text_of(loaded.base->id);
  }
  snapshot->file_ = std::move(file);
  return std::shared_ptr<const Snapshot>(std::move(snapshot));
}

bool Snapshot::is_snapshot(const std::string& path) { return looks_like_snapshot(path); }

Result<void> Snapshot::write(const std::string& path,
                             const std::function<bool()>& cancelled) const {
  SnapshotFile file = VMM_TRY(SnapshotFile::create(path));
  UniqueFd memory = VMM_TRY(file.ram_file());
  const RamImage ram = VMM_TRY(
      ram_->copy(std::move(memory),
                 {.offset = SnapshotFile::kRamOffset, .checksums = true, .cancelled = cancelled}));
  VMM_TRY(file.seal(*state_, ram));
  return file.commit();
}

VmConfig Snapshot::config(const std::shared_ptr<const Snapshot>& snapshot) {
  const MachineState& machine = snapshot->state_->machine;
  VmConfig config = config_of(machine.shape);
  config.boot = SnapshotBoot{snapshot};
  config.quirks = snapshot->quirks_;
  for (const SavedFile& file : machine.files) {
    const auto* const text = reinterpret_cast<const char*>(file.content.bytes.data());
    config.fw_cfg.push_back(
        {.name = file.name, .text = std::string(text, file.content.bytes.size())});
  }
  return config;
}

const std::shared_ptr<interpreter::SharedLines>& Snapshot::decoded_lines() const {
  std::call_once(lines_made_, [this] {
    if (!lines_) lines_ = std::make_shared<interpreter::SharedLines>();
  });
  return lines_;
}

std::uint64_t Snapshot::memory() const noexcept { return ram_->bytes(); }

std::uint64_t Snapshot::stored_bytes() const noexcept {
  return ram_->pages().count() * RamImage::kPage;
}

Result<void> Snapshot::verify() const { return ram_->verify(); }

Result<std::vector<GpaRange>> Snapshot::memory_difference(const Snapshot& other) const {
  return ram_->difference(*other.ram_);
}

std::string Snapshot::to_json() const {
  nlohmann::json document = to_document(*state_);
  show_bytes(document);
  document["memory"] = {{"size", memory()}, {"stored", stored_bytes()}};
  return document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace vmm
