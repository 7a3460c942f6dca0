// Persistent memory from what the user said about it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/log.h"
#include "base/result.h"

namespace vmm {

class PmemFile;

struct PmemSpec {
  std::string file = {};
  // Bytes, a multiple of 2 MiB; nothing: as large as the file. A file that is shorter grows, unless
  // it is not written; of one that is longer the guest has the beginning.
  std::optional<std::uint64_t> size = {};
  bool read_only = false;       // the guest's writes are dropped
  bool discard_writes = false;  // they stay in memory and end with the returned object
};

// Opens, locks and maps the file, for VirtioPmemConfig. It belongs to one machine at a time; it may
// outlive that and be given to the next. Errors name the file and what to do: kBadConfig, kIo,
// kResource.
Result<std::shared_ptr<PmemFile>> open_pmem(const PmemSpec& spec, const Log& log);

}  // namespace vmm
