#include "support/initrds.h"

#include <fmt/format.h>

namespace vmm::test {
namespace {

void add_entry(Bytes& out, std::string_view name, std::string_view content) {
  append(out, to_bytes(fmt::format("070701{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}"
                                   "{:08x}{:08x}{:08x}{:08x}",
                                   1, 0100755, 0, 0, 1, 0, content.size(), 0, 0, 0, 0,
                                   name.size() + 1, 0)));
  append(out, to_bytes(name));
  out.push_back(std::byte{0});
  pad(out, 4);
  append(out, to_bytes(content));
  pad(out, 4);
}

}  // namespace

void pad(Bytes& bytes, std::size_t alignment) {
  bytes.resize((bytes.size() + alignment - 1) / alignment * alignment);
}

Bytes cpio(std::string_view file_name, std::string_view content) {
  Bytes out;
  add_entry(out, file_name, content);
  add_entry(out, "TRAILER!!!", "");
  return out;
}

}  // namespace vmm::test
