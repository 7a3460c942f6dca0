#include "cli/flame_graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <memory>

#include "cli/safe_text.h"

namespace vmm::cli {
namespace {

constexpr double kWidth = 1200;
constexpr double kRow = 17;
constexpr double kMargin = 10;
constexpr double kHead = 36;       // with the title
constexpr double kLetter = 7;      // its width, about
constexpr double kThinnest = 0.2;  // what is thinner is left out
constexpr std::size_t kDeepest = 128;

// What was called from one place.
struct Node {
  std::uint64_t count = 0;  // of it and all that it called
  std::map<std::string, std::unique_ptr<Node>> children;
};

Node tree_of(const FoldedStacks& stacks) {
  Node root;
  for (const auto& [stack, count] : stacks) {
    Node* node = &root;
    node->count += count;
    for (std::size_t i = 0; i < std::min(stack.size(), kDeepest); ++i) {
      auto& child = node->children[stack[i]];
      if (!child) child = std::make_unique<Node>();
      node = child.get();
      node->count += count;
    }
  }
  return root;
}

std::size_t depth_of(const Node& node) {
  std::size_t depth = 0;
  for (const auto& [name, child] : node.children) depth = std::max(depth, 1 + depth_of(*child));
  return depth;
}

// Warm, and the same for the same name.
std::string colour_of(std::string_view name) {
  const std::size_t hash = std::hash<std::string_view>{}(name);
  return fmt::format("rgb({},{},{})", 205 + hash % 50, 80 + hash / 64 % 130, hash / 8192 % 60);
}

class Drawing {
 public:
  Drawing(const Node& root, std::size_t depth) : all_(root.count), depth_(depth) {}

  void draw(const Node& node, double x, std::size_t level) {
    for (const auto& [name, child] : node.children) {
      const double width = share(*child) * (kWidth - 2 * kMargin);
      if (width >= kThinnest) {
        box(name, *child, x, width, level);
        draw(*child, x, level + 1);
      }
      x += width;
    }
  }

  std::string take() { return std::move(text_); }

 private:
  double share(const Node& node) const {
    return static_cast<double>(node.count) / static_cast<double>(all_);
  }

  void box(const std::string& name, const Node& node, double x, double width, std::size_t level) {
    const double y = kHead + static_cast<double>(depth_ - 1 - level) * kRow;
    const std::string shown = xml_text(name);
    text_ += fmt::format(
        "<g><title>{} ({} samples, {:.1f} %)</title><rect x=\"{:.2f}\" y=\"{:.0f}\" "
        "width=\"{:.2f}\" height=\"{:.0f}\" fill=\"{}\" rx=\"1\"/>",
        shown, node.count, share(node) * 100, x, y, width, kRow - 1, colour_of(name));
    const auto letters = static_cast<std::size_t>(std::max(0.0, (width - 6) / kLetter));
    if (letters >= 3) {
      const std::string label =
          name.size() <= letters ? shown : xml_text(name.substr(0, letters - 2)) + "..";
      text_ += fmt::format("<text x=\"{:.2f}\" y=\"{:.0f}\">{}</text>", x + 3, y + 12, label);
    }
    text_ += "</g>\n";
  }

  const std::uint64_t all_;
  const std::size_t depth_;
  std::string text_;
};

}  // namespace

std::string folded_text(const FoldedStacks& stacks) {
  std::string text;
  for (const auto& [stack, count] : stacks) {
    for (std::size_t i = 0; i < stack.size(); ++i) {
      if (i != 0) text += ';';
      // These two have a meaning here.
      for (const char c : stack[i]) text += c == ';' || c == ' ' || c == '\n' ? '_' : c;
    }
    text += fmt::format(" {}\n", count);
  }
  return text;
}

std::string flame_graph(const FoldedStacks& stacks, std::string_view title) {
  const Node root = tree_of(stacks);
  const std::size_t depth = depth_of(root);
  const double height = kHead + static_cast<double>(depth) * kRow + kMargin;
  Drawing drawing(root, depth);
  if (root.count != 0) drawing.draw(root, kMargin, 0);
  return fmt::format(
             "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
             "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
             "viewBox=\"0 0 {0:.0f} {1:.0f}\" font-family=\"monospace\" font-size=\"11\">\n"
             "<rect width=\"100%\" height=\"100%\" fill=\"#fffdf5\"/>\n"
             "<text x=\"{2:.0f}\" y=\"22\" font-size=\"14\">{3}</text>\n",
             kWidth, height, kMargin, xml_text(title)) +
         drawing.take() + "</svg>\n";
}

}  // namespace vmm::cli
