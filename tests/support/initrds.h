// Tiny initramfs archives made in memory.
#pragma once

#include <string_view>

#include "support/kernel_images.h"

namespace vmm::test {

// A cpio archive ("newc") of one file, with its trailer.
Bytes cpio(std::string_view file_name, std::string_view content);
// Adds zeroes up to a multiple of `alignment`.
void pad(Bytes& bytes, std::size_t alignment);

}  // namespace vmm::test
