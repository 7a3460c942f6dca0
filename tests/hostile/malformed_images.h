// Malformed kernel images and initrds, made from good ones.
#pragma once

#include <string>
#include <vector>

#include "support/kernel_images.h"

namespace vmm::test {

struct Malformed {
  std::string name;  // what was done to the good one
  Bytes file;
};

using MalformedList = std::vector<Malformed>;

// Each field of a structure at its extremes: 0, 1, the largest values, the sign bit and its
// neighbour.
MalformedList setup_header_extremes();
MalformedList elf_header_extremes(bool is_64bit);
// The same files, packed into a bzImage.
MalformedList packed_elf_extremes();
// Cut off at and around each boundary of the format.
MalformedList truncated_bzimages();
MalformedList truncated_elfs();
MalformedList truncated_payloads();
// Sizes that lie, streams that go on, streams that stop, junk behind them.
MalformedList payload_lies();
// Segments that overlap, lie outside of RAM, share bytes of the file, are too many.
MalformedList segment_lies();
MalformedList note_lies();
MalformedList relocation_lies();
// Headers of both Multiboot versions, each field at its extremes with a checksum that is right
// again; in ELF files, in files without, packed.
MalformedList multiboot_extremes();
MalformedList truncated_multiboots();
// A good image with one byte inverted, here and there.
MalformedList flipped_bytes();

MalformedList malformed_initrds();

}  // namespace vmm::test
