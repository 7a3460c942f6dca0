// What a command writes where its --output says.
#pragma once

#include <string>

#include "base/result.h"

namespace vmm::cli {

// To a file, which is replaced, or to stdout for "-". Errors: kIo, kResource.
Result<void> write_output(const std::string& path, const std::string& text);

}  // namespace vmm::cli
