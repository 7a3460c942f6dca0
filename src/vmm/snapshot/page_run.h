// Which file of an image which pages come from, as lists of runs.
#pragma once

#include <cstdint>
#include <vector>

namespace vmm {

// Neighbouring pages that come from one file. A list of them is in order, without overlaps.
struct PageRun {
  std::uint64_t first = 0;
  std::uint64_t pages = 0;
  std::uint32_t layer = 0;  // the file: 0 is the lowest

  std::uint64_t end() const noexcept { return first + pages; }
  bool operator==(const PageRun&) const = default;
};

// One more run at the end of a list; none when it is empty, and part of the last one when it goes
// on with it.
void append(std::vector<PageRun>& runs, const PageRun& run);

// What of `below` is left, and what lies over it.
std::vector<PageRun> laid_over(const std::vector<PageRun>& below, const std::vector<PageRun>& over);

}  // namespace vmm
