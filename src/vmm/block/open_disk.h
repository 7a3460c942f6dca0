// Disks from what the user said about them.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/result.h"
#include "devices/block_backend.h"
#include "devices/block_rates.h"

namespace vmm {

enum class CowMode : std::uint8_t {
  kNone,       // writes go to the image
  kThrowAway,  // to a temporary file that ends with the disk
  kKeep,       // to `cow_file`, which is made when it does not exist
};

// How system calls for disks are made.
enum class DiskEngine : std::uint8_t {
  kAuto,  // io_uring, or threads where it is not to be had
  kUring,
  kThreads,
};

// A raw image, whatever its content looks like; or a disk at an NBD server.
struct DiskImage {
  std::string path = {};
  std::string nbd = {};  // the server's URI, instead of a path; neither `direct` nor `cow`
  bool read_only = false;
  bool direct = false;   // past the host's page cache
  bool discard = false;  // what the guest discards is given back to the host
  CowMode cow = CowMode::kNone;
  std::string cow_file = {};
  std::string scratch_directory = "/var/tmp";  // for kThrowAway
  BlockRates rates = {};  // with any, BlockBackend::set_rates() may change them later
};

// Opens and locks the images. A disk belongs to one machine at a time; it may outlive that and be
// given to the next. Errors name the image; kUnsupported without libnbd where it is needed.
Result<std::vector<std::shared_ptr<BlockBackend>>> open_disks(
    std::span<const DiskImage> images, const Log& log, DiskEngine engine = DiskEngine::kAuto);

// Makes the file of an image that is in use larger, a multiple of 512 bytes; its disk is told by
// BlockBackend::refresh_size(). Errors: kBadConfig when it would lose something; kUnsupported when
// the image is no file or is not written; kIo.
Result<void> grow_image(const DiskImage& image, std::uint64_t bytes);

}  // namespace vmm
