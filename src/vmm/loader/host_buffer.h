// A large temporary buffer of host memory that goes back to the system at once.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "base/result.h"

namespace vmm::loader {

// Page-aligned, zeroed, movable; sole owner. Not from the heap: malloc keeps what large blocks
// leave behind, and a guest's process is meant to stay small after its kernel is loaded.
class HostBuffer {
 public:
  enum class Pages : std::uint8_t {
    kNow,       // populated by one system call: cheaper than a fault for each page
    kWhenUsed,  // populated by faults: when much of it may never be touched
  };

  // `what` names the purpose for the message. A size of 0 gives an empty buffer. Errors: kResource.
  static Result<HostBuffer> create(std::size_t size, Pages pages, std::string_view what);

  HostBuffer() = default;
  HostBuffer(HostBuffer&& other) noexcept;
  HostBuffer& operator=(HostBuffer&& other) noexcept;
  ~HostBuffer();

  std::span<std::byte> bytes() noexcept { return {data_, size_}; }
  std::span<const std::byte> bytes() const noexcept { return {data_, size_}; }

 private:
  HostBuffer(std::byte* data, std::size_t size) : data_(data), size_(size) {}
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace vmm::loader
