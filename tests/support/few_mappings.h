// A process that can have few mappings more (vm.max_map_count): while one of these lives.
#pragma once

#include <sys/mman.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <string>

namespace vmm::test {

class FewMappings {
 public:
  // Of a larger limit filling it takes too long.
  static constexpr std::size_t kMostLimit = std::size_t{1} << 21;

  // How many mappings this kernel lets a process have; 0 when that cannot be told, or when the
  // process ends where they do: ThreadSanitizer maps as it goes.
  static std::size_t limit() {
#ifdef __SANITIZE_THREAD__
    return 0;
#endif
    std::size_t most = 0;
    std::ifstream("/proc/sys/vm/max_map_count") >> most;
    return most;
  }

  // Takes mappings until the kernel gives no more, and then gives about so many back.
  explicit FewMappings(std::size_t left) {
    if (limit() == 0 || limit() > kMostLimit) return;
    size_ = 2 * (limit() + 2) * kPage;
    void* const at =
        ::mmap(nullptr, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) return;
    begin_ = static_cast<std::byte*>(at);
    // Each page that differs from its neighbours is two mappings more.
    std::size_t pages = 0;
    while (protect(pages, PROT_READ)) ++pages;
    full_ = errno == ENOMEM;
    for (std::size_t i = 0; i < left && pages != 0; i += 2) protect(--pages, PROT_NONE);
  }
  FewMappings(const FewMappings&) = delete;
  FewMappings& operator=(const FewMappings&) = delete;
  ~FewMappings() {
    if (begin_ != nullptr) ::munmap(begin_, size_);
  }

  // That there were no more to be had.
  bool full() const noexcept { return full_; }

 private:
  static constexpr std::size_t kPage = 4096;

  bool protect(std::size_t index, int protection) const {
    const std::size_t at = (2 * index + 1) * kPage;
    return at + kPage < size_ && ::mprotect(begin_ + at, kPage, protection) == 0;
  }

  std::byte* begin_ = nullptr;
  std::size_t size_ = 0;
  bool full_ = false;
};

// How many mappings this process has in a part of its address space.
inline std::size_t mappings_within(const std::byte* begin, std::size_t size) {
  const auto from = reinterpret_cast<std::uintptr_t>(begin);
  std::size_t count = 0;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    const std::uintptr_t start = std::stoull(line, nullptr, 16);
    if (start >= from && start < from + size) ++count;
  }
  return count;
}

}  // namespace vmm::test
