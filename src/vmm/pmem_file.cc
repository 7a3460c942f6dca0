#include "vmm/pmem_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <limits>
#include <utility>

#include "base/size.h"

namespace vmm {
namespace {

constexpr auto kMostBytes = static_cast<std::uint64_t>(std::numeric_limits<off_t>::max());

tl::unexpected<Error> bad_size(std::uint64_t size) {
  return fail(ErrorCode::kBadConfig,
              "{} bytes are no size of a persistent memory: choose a multiple of {}, at least that",
              size, format_size(PmemFile::kUnit));
}

// A file grows to what the user said it is; nothing else is ever changed about it here.
Result<void> grow(const block::ImageFile& image, std::uint64_t from, std::uint64_t to) {
  struct stat status {};
  if (::fstat(image.fd(), &status) != 0) return fail_errno(errno, "Look at '{}'", image.name());
  if (image.read_only() || !S_ISREG(status.st_mode)) {
    return fail(ErrorCode::kBadConfig,
                "Persistent memory file '{}' has {} and not the {} of size=: say what it has, or "
                "make it as large ('truncate -s {} FILE')",
                image.name(), format_size(from), format_size(to), to);
  }
  if (::ftruncate(image.fd(), static_cast<off_t>(to)) != 0) {
    return fail_errno(errno, "Grow persistent memory file '{}' to {}", image.name(),
                      format_size(to));
  }
  return {};
}

Result<std::uint64_t> settle_size(const PmemSpec& spec, const block::ImageFile& image) {
  const std::uint64_t there = VMM_TRY(image.size());
  const std::uint64_t size = spec.size.value_or(there);
  if (size == 0 || size % PmemFile::kUnit != 0 || size > kMostBytes) {
    if (spec.size) return bad_size(size);
    return fail(ErrorCode::kBadConfig,
                "Persistent memory file '{}' has {} bytes, which is no multiple of {}: make it one "
                "('truncate -s %{} FILE'), or say size= for its beginning",
                image.name(), there, format_size(PmemFile::kUnit), PmemFile::kUnit);
  }
  if (there < size) VMM_TRY(grow(image, there, size));
  return size;
}

Result<std::unique_ptr<block::IoEngine>> make_engine() {
  auto ring = block::make_uring_engine();
  return ring ? std::move(ring) : block::make_thread_engine();
}

}  // namespace

Result<std::shared_ptr<PmemFile>> PmemFile::open(const PmemSpec& spec, const Log& log) {
  using Writes = FileMapping::Writes;
  const bool durable = !spec.read_only && !spec.discard_writes;
  // Before a file grows.
  if (spec.size && (*spec.size == 0 || *spec.size % kUnit != 0)) return bad_size(*spec.size);
  block::ImageFile image = VMM_TRY(block::ImageFile::open(
      spec.file,
      {.read_only = !durable, .noun = "Persistent memory file", .aside = "discard-writes"}));
  if (!image.locked()) {
    log(LogLevel::kWarning, "pmem",
        "file '{}' is on a file system without locks: nothing keeps others from writing it",
        spec.file);
  }
  const std::uint64_t size = VMM_TRY(settle_size(spec, image));
  auto mapping = VMM_TRY(with_context(FileMapping::create(image.fd(), size,
                                                          spec.read_only        ? Writes::kNone
                                                          : spec.discard_writes ? Writes::kPrivate
                                                                                : Writes::kShared),
                                      fmt::format("Persistent memory file '{}'", spec.file)));
  auto engine = VMM_TRY(make_engine());
  return std::shared_ptr<PmemFile>(
      new PmemFile(std::move(image), std::move(mapping), std::move(engine), durable));
}

Result<std::shared_ptr<PmemFile>> open_pmem(const PmemSpec& spec, const Log& log) {
  return PmemFile::open(spec, log);
}

PmemFile::PmemFile(block::ImageFile image, std::shared_ptr<const FileMapping> mapping,
                   std::unique_ptr<block::IoEngine> engine, bool durable)
    : image_(std::move(image)), mapping_(std::move(mapping)), engine_(std::move(engine)) {
  task_.owner = this;
  // What is written nowhere needs no flush, and is answered the same way.
  task_.op = durable ? block::IoOp::kSync : block::IoOp::kNothing;
  task_.fd = image_.fd();
}

PmemFile::~PmemFile() { engine_->drain(); }

std::optional<std::uint64_t> PmemFile::cut_to() const {
  const auto size = image_.size();
  if (!size || *size >= mapping_->size()) return std::nullopt;
  return *size;
}

void PmemFile::start_flush() {
  engine_->submit(task_);
  engine_->commit();
}

std::optional<int> PmemFile::take_result() {
  engine_->poll();
  return std::exchange(result_, std::nullopt);
}

void PmemFile::wait() { engine_->drain(); }

void PmemFile::io_done(block::IoTask&, std::int64_t result) {
  result_ = result < 0 ? static_cast<int>(-result) : 0;
}

}  // namespace vmm
