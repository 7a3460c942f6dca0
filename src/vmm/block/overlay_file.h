// The file behind a copy-on-write disk: where it keeps what was written, and which sectors those
// are.
//
// The format of a kept overlay (docs/block.md), little-endian, version 1:
//
//   0          header, 4 KiB: struct OverlayHeader, then zeroes
//   4 KiB      map: bit s % 8 of byte s / 8 is set when the overlay holds sector s; whole pages
//   data       sector s at data + 512 s
//
// Bits are only ever set, and only after the sectors that they stand for are durable: whenever
// writing is cut off, the overlay is a valid one.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/le.h"
#include "base/log.h"
#include "base/result.h"
#include "vmm/block/image_file.h"
#include "vmm/block/sector_map.h"

namespace vmm::block {

inline constexpr std::array<char, 8> kOverlayMagic{'v', 'm', 'm', '-', 'c', 'o', 'w', '\n'};
inline constexpr std::uint32_t kOverlayVersion = 1;

struct OverlayHeader {
  std::array<char, 8> magic = kOverlayMagic;
  Le32 version = kOverlayVersion;
  Le32 sector_size = 512;
  Le64 size = 0;        // of the disk, bytes
  Le64 image_time = 0;  // the image's last modification when the overlay was made, in nanoseconds
  Le64 map = 0;         // where the map begins
  Le64 data = 0;        // where the data begins
};
static_assert(sizeof(OverlayHeader) == 48);

struct OverlayLayout {
  static constexpr std::uint64_t kHeaderSize = 4096;
  explicit OverlayLayout(std::uint64_t disk_size);
  std::uint64_t map = kHeaderSize;
  std::uint64_t data = 0;
  std::uint64_t end = 0;
};

struct Overlay {
  ImageFile file;
  OverlayLayout layout;
  SectorMap map;
  bool kept;
};

// Opens the overlay `path` of `image`, whose disk has `disk_size` bytes, or makes it when there is
// no such file. Errors: kBadConfig for a file that is no overlay, not one of this image, or
// damaged; it is left as it is. kIo.
Result<Overlay> open_overlay(const std::string& path, const ImageFile& image,
                             std::uint64_t disk_size, bool direct, const Log& log);
// An overlay without a name in `directory`: gone with the process.
Result<Overlay> throw_away_overlay(const std::string& directory, std::uint64_t disk_size);

}  // namespace vmm::block
