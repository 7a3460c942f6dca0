// Stacks that were sampled, as folded lines and as a flame graph.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace vmm::cli {

// Functions from the outermost to the innermost, and how often a CPU was there.
using FoldedStacks = std::map<std::vector<std::string>, std::uint64_t>;

// "a;b;c 12", a line a stack, as flamegraph.pl and speedscope read it.
std::string folded_text(const FoldedStacks& stacks);

// A drawing by itself: width is time, a function lies on what called it; the pointer shows a
// name and its share. Names may be anything.
std::string flame_graph(const FoldedStacks& stacks, std::string_view title);

}  // namespace vmm::cli
