// Which sectors of a disk an overlay holds: one bit for each.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace vmm::block {

// Bits are set and never cleared. They are kept in pages of 4 KiB, each made when its first bit is
// set: memory grows with the parts of the disk that were written, at most to 1/4096 of its size.
class SectorMap {
 public:
  static constexpr std::uint64_t kPageSize = 4096;
  static constexpr std::uint64_t kSectorsInPage = kPageSize * 8;  // 16 MiB of disk

  explicit SectorMap(std::uint64_t sectors)
      : sectors_(sectors), pages_((sectors + kSectorsInPage - 1) / kSectorsInPage) {}

  std::uint64_t pages() const noexcept { return pages_.size(); }

  struct Run {
    bool held;
    std::uint64_t sectors;
  };
  // How many sectors from `first` on, at most `most`, are alike. The range lies within the disk.
  Run run_at(std::uint64_t first, std::uint64_t most) const noexcept;
  void set(std::uint64_t first, std::uint64_t count);

  // Pages that changed since they were last taken, with their content.
  struct Page {
    std::uint64_t index;
    std::unique_ptr<std::array<std::uint64_t, kPageSize / 8>> words;  // little-endian
  };
  std::vector<Page> take_changed();
  // What was taken could not be saved: it counts as changed again.
  void give_back(std::span<const Page> taken);
  // A page as it was saved. Bits beyond the disk's end are ignored.
  void load(std::uint64_t index, std::span<const std::byte, kPageSize> bytes);

 private:
  using Words = std::array<std::uint64_t, kPageSize / 8>;
  struct Slot {
    std::unique_ptr<Words> words;  // nothing: no bit is set
    bool changed = false;
  };
  std::uint64_t sectors_;
  std::vector<Slot> pages_;
};

}  // namespace vmm::block
