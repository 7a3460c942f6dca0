// Unpacks what is compressed in an initramfs: several cpio archives one behind the other, each
// plain or compressed, with zeroes between them.
//
// Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst, and init/initramfs.c
// for what it accepts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "vmm/loader/host_buffer.h"

namespace vmm::loader {

struct UnpackedInitrd {
  HostBuffer buffer;               // starts with the archives
  std::size_t size = 0;            // bytes of it
  std::size_t unpacked = 0;        // how many archives were compressed
  std::vector<std::string> notes;  // one line for each of those

  std::span<const std::byte> bytes() const noexcept { return buffer.bytes().first(size); }
};

// The same archives, none compressed, each at a multiple of 512 bytes. At most `limit` bytes.
// Errors: kBadKernel saying at which byte something is neither an archive nor padding, kResource.
Result<UnpackedInitrd> unpack_initrd(std::span<const std::byte> initrd, std::uint64_t limit);

}  // namespace vmm::loader
