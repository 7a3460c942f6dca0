// Which version of the library this is (docs/library.md says what the numbers promise).
#pragma once

namespace vmm {

// Of the library that the program runs with: "0.1.0".
const char* version() noexcept;

}  // namespace vmm
