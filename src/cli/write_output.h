// What a command writes where its --output, --result or --junit says.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/replaced_file.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace vmm::cli {

// Opened before the work whose outcome it takes, so that a place that cannot be written is known at
// once. A regular file gets the text at once and whole, or stays as it was; its mode is kept, a new
// one's is 0644. Anything else ("-" for stdout, what lies in /dev, a FIFO) is written as it is. One
// thread at a time.
class OutputFile {
 public:
  // Errors: kIo, kResource.
  static Result<OutputFile> open(const std::string& path);

  // Once; the end of it. Errors: kIo, kResource.
  Result<void> finish(std::string_view text);

 private:
  explicit OutputFile(std::string path) : path_(std::move(path)) {}

  std::string path_;
  std::optional<ReplacedFile> replaced_;  // neither this nor the next: stdout
  UniqueFd stream_;
};

// The two in one. Errors: kIo, kResource.
Result<void> write_output(const std::string& path, std::string_view text);

}  // namespace vmm::cli
