// A file that takes the place of another when it is complete.
#pragma once

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace vmm {

// Until commit(), and on errors, nothing has happened to what was there. Until then it has no name,
// so that nothing is left of it when the process dies; where the file system knows no such files
// (O_TMPFILE), it has the name PATH.XXXXXX, which then stays. One thread at a time.
class ReplacedFile {
 public:
  // Beside `path`, of mode 0600. Errors: kIo, kResource.
  static Result<ReplacedFile> create(const std::string& path);
  ReplacedFile(ReplacedFile&& other) noexcept;
  ReplacedFile& operator=(ReplacedFile&&) = delete;
  ~ReplacedFile();  // removes what was not committed

  int fd() const noexcept { return file_.get(); }
  // A descriptor of the caller's own.
  Result<UniqueFd> duplicate() const;
  // Waits until everything is on the disk, and gives it its name. Errors: kIo, kResource.
  Result<void> commit();

 private:
  ReplacedFile(std::string path, std::string temporary, UniqueFd file)
      : path_(std::move(path)), temporary_(std::move(temporary)), file_(std::move(file)) {}
  std::string path_;
  std::string temporary_;  // a name that it has; empty: none, or that of path_
  UniqueFd file_;
};

}  // namespace vmm
