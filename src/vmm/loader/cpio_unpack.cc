#include "vmm/loader/cpio_unpack.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "base/checked.h"
#include "base/size.h"
#include "vmm/loader/decompress.h"

namespace vmm::loader {
namespace {

constexpr std::size_t kHeaderSize = 110;  // buffer-format.rst: "newc" header
constexpr std::size_t kMagicSize = 6;
constexpr std::size_t kFileSizeAt = 54;
constexpr std::size_t kNameSizeAt = 94;
constexpr std::size_t kMemberAlignment = 512;
constexpr std::string_view kTrailer = "TRAILER!!!";

bool is_cpio(std::span<const std::byte> bytes) {
  if (bytes.size() < kMagicSize) return false;
  const std::string_view magic(reinterpret_cast<const char*>(bytes.data()), kMagicSize);
  return magic == "070701" || magic == "070702";
}

// Eight hexadecimal digits.
Result<std::uint64_t> number(std::span<const std::byte> header, std::size_t at) {
  std::uint64_t value = 0;
  for (const std::byte b : header.subspan(at, 8)) {
    const char c = std::to_integer<char>(b);
    unsigned digit = 0;
    if (c >= '0' && c <= '9') {
      digit = static_cast<unsigned>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      digit = static_cast<unsigned>(c - 'a') + 10;
    } else if (c >= 'A' && c <= 'F') {
      digit = static_cast<unsigned>(c - 'A') + 10;
    } else {
      return fail(ErrorCode::kBadKernel, "cpio header: a number has the byte {:#x}",
                  std::to_integer<unsigned>(b));
    }
    value = value << 4 | digit;
  }
  return value;
}

// The bytes of the plain archive at the front: up to and with its trailer, or up to where no
// further entry starts.
Result<std::size_t> archive_size(std::span<const std::byte> bytes) {
  std::size_t at = 0;
  while (is_cpio(bytes.subspan(at))) {
    const auto entry = bytes.subspan(at);
    if (entry.size() < kHeaderSize) {
      return fail(ErrorCode::kBadKernel, "cpio header at byte {} of its archive is truncated", at);
    }
    const std::uint64_t name_size = VMM_TRY(number(entry, kNameSizeAt));
    const std::uint64_t file_size = VMM_TRY(number(entry, kFileSizeAt));
    // 64-bit sums of 32-bit fields cannot wrap. Name and file are padded to multiples of 4.
    const std::uint64_t name_end = (kHeaderSize + name_size + 3) / 4 * 4;
    const std::uint64_t end = name_end + file_size;
    if (end > entry.size()) {
      return fail(
          ErrorCode::kBadKernel,
          "cpio header at byte {} of its archive: c_namesize {:#x} and c_filesize {:#x} end "
          "past its {} bytes",
          at, name_size, file_size, bytes.size());
    }
    const std::string_view name(reinterpret_cast<const char*>(entry.data()) + kHeaderSize,
                                static_cast<std::size_t>(name_size));
    at += std::min(entry.size(), static_cast<std::size_t>((end + 3) / 4 * 4));
    if (name.starts_with(kTrailer)) break;
  }
  return at;
}

// Output goes right behind what is there already.
class BufferSink final : public OutputSink {
 public:
  explicit BufferSink(std::span<std::byte> room) : room_(room) {}

  Result<Produced> receive(std::size_t least, const Produce& produce) override {
    const auto rest = room_.subspan(used_);
    if (rest.size() >= least) {
      const Produced produced = VMM_TRY(produce(rest));
      used_ += produced.bytes;
      return produced;
    }
    HostBuffer scratch =
        VMM_TRY(HostBuffer::create(least, HostBuffer::Pages::kWhenUsed, "decompression"));
    const Produced produced = VMM_TRY(produce(scratch.bytes()));
    if (produced.bytes > rest.size()) {
      return fail(ErrorCode::kBadKernel, "the archive unpacks to more than {} bytes", room_.size());
    }
    std::ranges::copy(scratch.bytes().first(produced.bytes), rest.begin());
    used_ += produced.bytes;
    return produced;
  }

 private:
  const std::span<std::byte> room_;
  std::size_t used_ = 0;
};

class Unpacker {
 public:
  Unpacker(std::span<const std::byte> in, std::uint64_t limit, UnpackedInitrd& result)
      : in_(in), limit_(limit), result_(result) {}

  Result<void> run() {
    while (at_ < in_.size()) {
      const auto rest = in_.subspan(at_);
      if (rest.front() == std::byte{0}) {
        ++at_;
      } else if (is_cpio(rest) && at_ % 4 == 0) {
        VMM_TRY(copy_archive(rest));
      } else if (const auto compression = detect_compression(rest)) {
        VMM_TRY(unpack_archive(*compression, rest));
      } else {
        return fail(ErrorCode::kBadKernel,
                    "byte {:#x} of the initrd starts neither a cpio archive nor a compressed one",
                    at_);
      }
    }
    return {};
  }

 private:
  // Where the next archive may start, with zeroes from the last one up to there: a decompressor may
  // have used what lies behind its output.
  Result<std::uint64_t> next_start() {
    const auto start = checked_align_up<std::uint64_t>(result_.size, kMemberAlignment);
    if (!start || *start > limit_) return too_large();
    const auto bytes = result_.buffer.bytes().first(static_cast<std::size_t>(*start));
    std::ranges::fill(bytes.subspan(result_.size), std::byte{0});
    return *start;
  }
  tl::unexpected<Error> too_large() const {
    return fail(ErrorCode::kBadKernel, "unpacked it is larger than {}", format_size(limit_));
  }

  Result<void> copy_archive(std::span<const std::byte> rest) {
    const std::size_t size = VMM_TRY(archive_size(rest));
    const std::uint64_t start = VMM_TRY(next_start());
    if (size > limit_ - start) return too_large();
    std::ranges::copy(rest.first(size),
                      result_.buffer.bytes().subspan(static_cast<std::size_t>(start)).begin());
    result_.size = static_cast<std::size_t>(start) + size;
    at_ += size;
    return {};
  }

  Result<void> unpack_archive(Compression compression, std::span<const std::byte> rest) {
    const std::uint64_t start = VMM_TRY(next_start());
    const auto room = result_.buffer.bytes().subspan(static_cast<std::size_t>(start));
    BufferSink sink(room);
    const DecompressResult done =
        VMM_TRY(with_context(decompress(compression, rest, limit_ - start, sink),
                             fmt::format("unpack the {} archive at byte {:#x} of the initrd",
                                         to_string(compression), at_)));
    if (!is_cpio(room.first(static_cast<std::size_t>(done.produced)))) {
      return fail(ErrorCode::kBadKernel,
                  "what is packed with {} at byte {:#x} of the initrd is no cpio archive",
                  to_string(compression), at_);
    }
    result_.size = static_cast<std::size_t>(start + done.produced);
    result_.notes.push_back(fmt::format("{} archive of {} unpacked on the host to {}",
                                        to_string(compression), format_size(done.consumed),
                                        format_size(done.produced)));
    ++result_.unpacked;
    at_ += static_cast<std::size_t>(done.consumed);
    return {};
  }

  const std::span<const std::byte> in_;
  const std::uint64_t limit_;
  UnpackedInitrd& result_;
  std::size_t at_ = 0;
};

}  // namespace

Result<UnpackedInitrd> unpack_initrd(std::span<const std::byte> initrd, std::uint64_t limit) {
  UnpackedInitrd result;
  // One byte more, so that a decoder has room to find the end of its stream at the limit.
  result.buffer = VMM_TRY(HostBuffer::create(static_cast<std::size_t>(limit) + 1,
                                             HostBuffer::Pages::kWhenUsed, "unpacking an initrd"));
  VMM_TRY(Unpacker(initrd, limit, result).run());
  return result;
}

}  // namespace vmm::loader
