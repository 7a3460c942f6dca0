#include "cli/write_output.h"

#include <cerrno>
#include <cstdio>

namespace vmm::cli {

Result<void> write_output(const std::string& path, const std::string& text) {
  std::FILE* const file = path == "-" ? stdout : std::fopen(path.c_str(), "we");
  if (file == nullptr) return fail_errno(errno, "Create {}", path);
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  const bool whole = file == stdout ? std::fflush(file) == 0 : std::fclose(file) == 0;
  if (!written || !whole) return fail_errno(errno, "Write {}", path);
  return {};
}

}  // namespace vmm::cli
