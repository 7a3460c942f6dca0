#include "vmm/snapshot/page_run.h"

#include <algorithm>

namespace vmm {

void append(std::vector<PageRun>& runs, const PageRun& run) {
  if (run.pages == 0) return;
  if (!runs.empty() && runs.back().layer == run.layer && runs.back().end() == run.first) {
    runs.back().pages += run.pages;
  } else {
    runs.push_back(run);
  }
}

std::vector<PageRun> laid_over(const std::vector<PageRun>& below,
                               const std::vector<PageRun>& over) {
  std::vector<PageRun> runs;
  auto next = over.begin();
  for (PageRun run : below) {
    while (next != over.end() && next->first < run.end()) {
      if (next->first > run.first) {
        append(runs, {.first = run.first, .pages = next->first - run.first, .layer = run.layer});
      }
      if (next->end() > run.end()) {  // covers more than this one
        run.pages = 0;
        break;
      }
      append(runs, *next);
      const std::uint64_t from = std::max(run.first, next->end());
      run.pages = run.end() - from;
      run.first = from;
      ++next;
    }
    append(runs, run);
  }
  for (; next != over.end(); ++next) append(runs, *next);
  return runs;
}

}  // namespace vmm
