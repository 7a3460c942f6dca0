#include "vmm/snapshot/page_list.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <iterator>
#include <optional>
#include <string_view>
#include <utility>

#include "base/replaced_file.h"
#include "base/size.h"
#include "base/unique_fd.h"
#include "vmm/snapshot/snapshot.h"

namespace vmm {
namespace {

constexpr std::string_view kMagic = "vmm page list 1";
constexpr std::string_view kSnapshot = "snapshot ";
constexpr std::string_view kPages = "pages ";
constexpr std::size_t kIdSize = 40;  // of Snapshot::File
// More than kMost numbers of 12 digits, with what is before them.
constexpr std::uint64_t kMostBytes = MiB(64);
constexpr std::uint64_t kPageSize = 4096;

Result<std::string> read_text(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file) return fail_errno(errno, "Open it");
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) return fail_errno(errno, "Look at it");
  if (!S_ISREG(status.st_mode)) return fail(ErrorCode::kBadState, "It is no regular file");
  const auto size = static_cast<std::uint64_t>(status.st_size);
  if (size > kMostBytes) {
    return fail(ErrorCode::kBadState, "It has {}, and a list of pages at most {}",
                format_size(size), format_size(kMostBytes));
  }
  std::string text(static_cast<std::size_t>(size), '\0');
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t n =
        ::pread(file.get(), text.data() + done, text.size() - done, static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "Read it");
    if (n == 0) return fail(ErrorCode::kBadState, "It ends in the middle");
    done += static_cast<std::size_t>(n);
  }
  return text;
}

std::optional<std::uint64_t> number_of(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  return whole ? std::optional(value) : std::nullopt;
}

// Takes a text apart, line by line.
class Lines {
 public:
  explicit Lines(std::string_view text) : rest_(text) {}

  std::uint64_t number() const noexcept { return number_; }  // of the last one, from 1
  bool at_end() const noexcept { return rest_.empty(); }
  // The next line without its end; nothing when there is no whole one.
  std::optional<std::string_view> next() {
    ++number_;
    const std::size_t end = rest_.find('\n');
    if (end == std::string_view::npos) return std::nullopt;
    const std::string_view line = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return line;
  }
  // What follows `begin` in the next line.
  std::optional<std::string_view> next(std::string_view begin) {
    const auto line = next();
    if (!line || !line->starts_with(begin)) return std::nullopt;
    return line->substr(begin.size());
  }

 private:
  std::string_view rest_;
  std::uint64_t number_ = 0;
};

std::string id_of(const Snapshot& snapshot) {
  return snapshot.file() ? snapshot.file()->id : std::string();
}

}  // namespace

PageList::PageList(const Snapshot& snapshot, std::vector<std::uint64_t> pages)
    : snapshot_(id_of(snapshot)), pages_(std::move(pages)) {}

Result<std::shared_ptr<const PageList>> PageList::read(const std::string& path) {
  const std::string reading = fmt::format("Read the page list {}", path);
  const std::string text = VMM_TRY(with_context(read_text(path), reading));
  Lines lines(text);
  const auto wrong = [&](std::string_view what) {
    return fail(ErrorCode::kBadState, "{}: line {} is not {}", reading, lines.number(), what);
  };
  if (lines.next() != kMagic) return wrong("'vmm page list 1': it is none that this program knows");
  auto list = std::make_shared<PageList>();
  const auto id = lines.next(kSnapshot);
  const auto is_digit = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  if (!id || id->size() != kIdSize || !std::all_of(id->begin(), id->end(), is_digit)) {
    return wrong("'snapshot' and an ID");
  }
  list->snapshot_ = *id;
  const auto count = number_of(lines.next(kPages).value_or(""));
  if (!count || *count > kMost) return wrong("'pages' and how many");
  for (std::uint64_t i = 0; i < *count; ++i) {
    const auto page = number_of(lines.next().value_or(""));
    if (!page) return wrong("the number of a page");
    list->pages_.push_back(*page);
  }
  if (!lines.at_end()) {
    return fail(ErrorCode::kBadState, "{}: there is more than the {} pages that it has", reading,
                *count);
  }
  return std::shared_ptr<const PageList>(std::move(list));
}

Result<void> PageList::write(const std::string& path) const {
  const std::string writing = fmt::format("Write the page list {}", path);
  if (snapshot_.empty()) {
    return fail(ErrorCode::kUnsupported, "{}: its snapshot is not from a file", writing);
  }
  std::string text =
      fmt::format("{}\n{}{}\n{}{}\n", kMagic, kSnapshot, snapshot_, kPages, pages_.size());
  for (const std::uint64_t page : pages_) fmt::format_to(std::back_inserter(text), "{}\n", page);
  ReplacedFile file = VMM_TRY(with_context(ReplacedFile::create(path), writing));
  for (std::string_view rest = text; !rest.empty();) {
    const ssize_t n = ::write(file.fd(), rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return fail_errno(n < 0 ? errno : EIO, "{}", writing);
    rest.remove_prefix(static_cast<std::size_t>(n));
  }
  return with_context(file.commit(), writing);
}

Result<void> PageList::check_fits(const Snapshot& snapshot) const {
  if (snapshot_ != id_of(snapshot)) {
    return fail(ErrorCode::kBadState,
                "The page list is of the snapshot {}, and this is {}: record another one",
                snapshot_.empty() ? "of a machine in memory" : snapshot_,
                snapshot.file() ? snapshot.file()->id : "not from a file");
  }
  const std::uint64_t most = snapshot.memory() / kPageSize;
  for (const std::uint64_t page : pages_) {
    if (page >= most) {
      return fail(ErrorCode::kBadState, "The page list has page {}, and its snapshot {} pages",
                  page, most);
    }
  }
  return {};
}

}  // namespace vmm
