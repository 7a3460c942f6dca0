// userfaultfd(2): pages that this process brings when somebody touches them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/result.h"
#include "base/unique_fd.h"

namespace vmm {

// Private anonymous memory that is watched has its missing pages brought by whoever holds this:
// until then a thread that touches one waits, in a system call or in KVM_RUN as well. When this
// goes, all who wait go on, with zeroes. One thread at a time.
class PageFaults {
 public:
  // Errors: kUnsupported naming what the host's administrator can do: faults of the kernel, as KVM
  // has them, need a permission.
  static Result<PageFaults> open();

  // Whole pages; they stay mapped as long as this. Errors: what the kernel refuses.
  Result<void> watch(std::span<std::byte> memory) const;
  // Readable when somebody waits.
  int fd() const noexcept { return fd_.get(); }
  // The page that the next one waits for; nothing when there is none. Errors: the kernel's.
  Result<std::optional<std::byte*>> next() const;

  // Brings whole pages, each at `to` and on, where they are missing, and lets go who waits for
  // them; pages that are there stay. Errors: kResource, or what the kernel refuses: then some may
  // have been brought.
  Result<void> bring(std::byte* to, std::span<const std::byte> pages) const;
  // The same with zeroes.
  Result<void> bring_zeroes(std::byte* to, std::uint64_t size) const;

 private:
  explicit PageFaults(UniqueFd fd) : fd_(std::move(fd)) {}
  void wake(std::byte* page) const noexcept;
  // Calls fn(how far, bytes brought), an ioctl, until all of `size` is there.
  template <typename Fn>
  Result<void> bring_all(std::byte* to, std::uint64_t size, Fn&& fn) const;

  UniqueFd fd_;
};

}  // namespace vmm
