// A kernel image, taken apart: what it is and what is inside, without a guest.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "vmm/loader/bzimage.h"
#include "vmm/loader/decompress.h"
#include "vmm/loader/elf.h"
#include "vmm/loader/host_buffer.h"
#include "vmm/loader/multiboot.h"

namespace vmm::loader {

enum class ImageFormat : std::uint8_t {
  kBzImage,        // Linux boot protocol 2.xx
  kElf,            // ELF32 or ELF64
  kCompressedElf,  // such a file packed as a whole ("gzip vmlinux")
  kMultiboot,      // no ELF but with a Multiboot header, packed or not
};

// What is in an ELF file, or in the payload of a bzImage.
struct ElfFacts {
  ElfHeaders headers;
  std::vector<ElfNote> notes;
  std::uint64_t size = 0;         // of the unpacked file with all that follows the ELF
  std::optional<Gpa> pvh;         // 32-bit PVH entry
  bool looks_like_linux = false;  // a note of Linux, or segments in Linux's virtual map
  // Entries of the relocation table behind the ELF; nothing when there is none or it was not kept.
  std::optional<std::uint64_t> relocations;
};

// A file without its packing: its own bytes, or others' that were not packed.
class UnpackedFile {
 public:
  explicit UnpackedFile(std::span<const std::byte> borrowed) : bytes_(borrowed) {}
  UnpackedFile(HostBuffer buffer, std::size_t size)
      : buffer_(std::move(buffer)), bytes_(buffer_.bytes().first(size)) {}
  std::span<const std::byte> bytes() const noexcept { return bytes_; }

 private:
  HostBuffer buffer_;
  std::span<const std::byte> bytes_;
};

// The parsed headers of an image, and its bytes. Movable, immutable, any thread.
class KernelImage {
 public:
  static constexpr std::uint64_t kMaxFileSize = 1ULL << 30;
  static constexpr std::uint64_t kMaxUnpackedSize = 1ULL << 30;     // Linux's KERNEL_IMAGE_SIZE
  static constexpr std::uint64_t kMaxMultibootSize = 256ULL << 20;  // unpacked as one piece

  // Reads the file and parses its headers. Errors: kBadKernel naming file, field and value; a file
  // of no known format is one.
  static Result<KernelImage> open(const std::filesystem::path& path);
  // The same for bytes at hand, which are borrowed and outlive the image.
  static Result<KernelImage> parse(std::span<const std::byte> bytes, std::string name);

  const std::string& name() const noexcept { return name_; }
  ImageFormat format() const noexcept { return format_; }
  std::span<const std::byte> bytes() const noexcept { return bytes_; }
  // The setup header; nothing unless kBzImage.
  const std::optional<SetupHeader>& setup_header() const noexcept { return setup_header_; }

  // The bytes that hold the ELF, packed or not: a bzImage's payload without its appended size, or
  // the whole file. Empty for a bzImage without one.
  std::span<const std::byte> payload() const noexcept { return payload_; }
  // How the payload is packed; nothing when it is a plain ELF or nothing that is known.
  std::optional<Compression> compression() const noexcept { return compression_; }
  // True when there is a payload that can be unpacked here.
  bool can_unpack() const noexcept { return compression_.has_value() || is_elf(payload_); }
  // How long the payload is once unpacked, where the image says so.
  std::optional<std::uint64_t> unpacked_size() const noexcept { return unpacked_size_; }

  // Whether there is a Multiboot header of this version.
  bool has_multiboot(MultibootVersion version) const noexcept {
    return version == MultibootVersion::k1 ? multiboot1_ : multiboot2_;
  }
  // The whole file without its packing, for images that are not bzImages; borrows from this image.
  // Errors: kBadKernel, also above kMaxMultibootSize; kResource.
  Result<UnpackedFile> unpack() const;

  // Unpacks the payload, looks, and forgets it again: for inspection; load_kernel() does not need
  // it. Errors: kBadKernel, kResource.
  Result<ElfFacts> examine_payload() const;

 private:
  KernelImage(std::span<const std::byte> bytes, std::string name)
      : name_(std::move(name)), bytes_(bytes) {}
  Result<void> parse_headers();
  Result<void> find_payload();
  void find_multiboot_headers(std::span<const std::byte> start);

  std::string name_;
  HostBuffer owned_;  // empty when the bytes are borrowed
  std::span<const std::byte> bytes_;
  ImageFormat format_ = ImageFormat::kElf;
  std::optional<SetupHeader> setup_header_;
  std::span<const std::byte> payload_;
  std::optional<Compression> compression_;
  std::optional<std::uint64_t> unpacked_size_;
  bool multiboot1_ = false;
  bool multiboot2_ = false;
};

// Feeds the payload of `image`, unpacked, to `stream` and finishes it. Errors: kBadKernel naming
// the file; the stream's.
class ElfStream;
Result<void> unpack_payload(const KernelImage& image, ElfStream& stream);

// What a finished stream has seen.
ElfFacts facts_of(const ElfStream& stream);

}  // namespace vmm::loader
