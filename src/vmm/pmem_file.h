// A file of the host that a guest has as persistent memory.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/log.h"
#include "base/result.h"
#include "devices/pmem_backend.h"
#include "memory/file_mapping.h"
#include "vmm/block/image_file.h"
#include "vmm/block/io_engine.h"
#include "vmm/open_pmem.h"

namespace vmm {

// Opened, locked as a disk image is, and mapped. May outlive its machine and be given to the next.
class PmemFile final : public PmemBackend, private block::IoOwner {
 public:
  static constexpr std::uint64_t kUnit = std::uint64_t{2} << 20;  // sizes are multiples of it

  // Errors name the file and what to do: kBadConfig, kIo, kResource.
  static Result<std::shared_ptr<PmemFile>> open(const PmemSpec& spec, const Log& log);
  ~PmemFile() override;

  const std::string& name() const noexcept { return image_.name(); }
  const std::shared_ptr<const FileMapping>& mapping() const noexcept { return mapping_; }
  // How many bytes the file has left, when these are fewer than the guest was given. Any thread.
  std::optional<std::uint64_t> cut_to() const;

  void start_flush() override;
  std::optional<int> take_result() override;
  void wait() override;
  int event_fd() const noexcept override { return engine_->event_fd(); }

 private:
  PmemFile(block::ImageFile image, std::shared_ptr<const FileMapping> mapping,
           std::unique_ptr<block::IoEngine> engine, bool durable);
  void io_done(block::IoTask& task, std::int64_t result) override;

  const block::ImageFile image_;
  const std::shared_ptr<const FileMapping> mapping_;
  const std::unique_ptr<block::IoEngine> engine_;
  block::IoTask task_;
  std::optional<int> result_;
};

}  // namespace vmm
