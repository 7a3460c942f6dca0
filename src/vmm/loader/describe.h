// What a kernel image is, for people and for programs: the substance of `vmm inspect`.
#pragma once

#include <string>

#include "vmm/loader/kernel_image.h"

namespace vmm::loader {

// Lines of text, each with its newline. Unpacks the payload to look inside; when that fails, the
// reason stands where the kernel's facts would.
std::string describe_text(const KernelImage& image);

// The same as a JSON object, one key a fact; addresses and flags as numbers. docs/loader.md lists
// the keys.
std::string describe_json(const KernelImage& image);

}  // namespace vmm::loader
