#include "vmm/loader/kernel_image.h"

#include <algorithm>

#include "base/le.h"
#include "base/size.h"
#include "vmm/loader/elf_stream.h"
#include "vmm/loader/input_file.h"
#include "vmm/loader/relocations.h"

namespace vmm::loader {
namespace {

constexpr std::uint64_t kStartKernelMap = 0xffffffff80000000;  // Linux: __START_KERNEL_map

bool looks_like_linux(const ElfHeaders& elf, std::span<const ElfNote> notes) {
  if (std::ranges::any_of(notes, [](const ElfNote& n) { return n.owner == "Linux"; })) return true;
  return elf.is_64bit && elf.holds_code(Gpa(elf.entry)) &&
         std::ranges::any_of(elf.segments, [](const ElfSegment& s) {
           return s.virtual_address >= kStartKernelMap &&
                  s.virtual_address - kStartKernelMap == s.memory.base().value;
         });
}

// The first bytes of what is packed, as far as they can be unpacked.
std::vector<std::byte> unpacked_start(Compression compression, std::span<const std::byte> packed) {
  std::vector<std::byte> start;
  // Ends with an error once there is enough, or where the stream is bad: whoever needs more says
  // so.
  (void)decompress(compression, packed, KernelImage::kMaxUnpackedSize,
                   [&](std::span<const std::byte> piece) -> Result<void> {
                     const std::size_t wanted = kMultibootWindow - start.size();
                     const auto part = piece.first(std::min(piece.size(), wanted));
                     start.insert(start.end(), part.begin(), part.end());
                     if (start.size() < kMultibootWindow) return {};
                     return fail(ErrorCode::kBadKernel, "enough");
                   });
  return start;
}

// Takes an unpacked file in one piece.
class WholeFile final : public OutputSink {
 public:
  explicit WholeFile(HostBuffer& buffer) : buffer_(buffer) {}
  Result<Produced> receive(std::size_t least, const Produce& produce) override {
    const auto room = buffer_.bytes().subspan(size_);
    if (room.size() < least) {
      return fail(ErrorCode::kBadKernel, "it unpacks to more than the {} that are accepted",
                  format_size(KernelImage::kMaxMultibootSize));
    }
    const Produced produced = VMM_TRY(produce(room));
    size_ += produced.bytes;
    return produced;
  }

 private:
  HostBuffer& buffer_;
  std::size_t size_ = 0;
};

}  // namespace

Result<KernelImage> KernelImage::open(const std::filesystem::path& path) {
  const InputFile file = VMM_TRY(InputFile::open(path, kMaxFileSize));
  HostBuffer buffer = VMM_TRY(file.read_all());
  KernelImage image = VMM_TRY(parse(buffer.bytes(), file.name()));
  image.owned_ = std::move(buffer);
  return image;
}

Result<KernelImage> KernelImage::parse(std::span<const std::byte> bytes, std::string name) {
  KernelImage image(bytes, std::move(name));
  Result<void> parsed = image.parse_headers();
  if (!parsed) return tl::unexpected<Error>(std::move(parsed).error().wrap(image.name_));
  return image;
}

Result<void> KernelImage::parse_headers() {
  if (is_bzimage(bytes_)) {
    format_ = ImageFormat::kBzImage;
    setup_header_ = VMM_TRY(parse_setup_header(bytes_));
    return find_payload();
  }
  payload_ = bytes_;
  if (is_elf(bytes_)) {
    find_multiboot_headers(bytes_);
    format_ = ImageFormat::kElf;
    unpacked_size_ = bytes_.size();
    VMM_TRY(
        parse_elf_headers(bytes_.first(std::min(bytes_.size(), kElfHeaderWindow)), bytes_.size()));
    return {};
  }
  compression_ = detect_compression(bytes_);
  const std::vector<std::byte> start =
      compression_ ? unpacked_start(*compression_, bytes_) : std::vector<std::byte>();
  find_multiboot_headers(compression_ ? start : bytes_);
  if ((multiboot1_ || multiboot2_) && !is_elf(start)) {
    format_ = ImageFormat::kMultiboot;
    return {};
  }
  if (compression_) {
    format_ = ImageFormat::kCompressedElf;
    return {};
  }
  return fail(ErrorCode::kBadKernel,
              "not a kernel image: neither a Linux bzImage (no boot_flag 0xaa55 and HdrS at 0x1fe "
              "and 0x202), nor an ELF file, nor one that is compressed, nor a Multiboot image");
}

void KernelImage::find_multiboot_headers(std::span<const std::byte> start) {
  multiboot1_ = find_multiboot(start, MultibootVersion::k1).has_value();
  multiboot2_ = find_multiboot(start, MultibootVersion::k2).has_value();
}

Result<UnpackedFile> KernelImage::unpack() const {
  if (!compression_ || format_ == ImageFormat::kBzImage) return UnpackedFile(bytes_);
  // One block of the formats with large blocks more than the limit, so that the last one fits.
  constexpr std::size_t kBlock = std::size_t{8} << 20;
  HostBuffer buffer = VMM_TRY(HostBuffer::create(kMaxMultibootSize + kBlock,
                                                 HostBuffer::Pages::kWhenUsed, "decompression"));
  WholeFile sink(buffer);
  const DecompressResult result =
      VMM_TRY(with_context(decompress(*compression_, payload_, kMaxMultibootSize, sink), name_));
  return UnpackedFile(std::move(buffer), static_cast<std::size_t>(result.produced));
}

Result<void> KernelImage::find_payload() {
  if (!setup_header_->payload) return {};
  const FileRange range = *setup_header_->payload;
  payload_ =
      bytes_.subspan(static_cast<std::size_t>(range.begin), static_cast<std::size_t>(range.size()));
  if (is_elf(payload_)) {
    unpacked_size_ = payload_.size();
    return {};
  }
  compression_ = detect_compression(payload_);
  if (!compression_) return {};
  // The last four bytes are the unpacked size (boot.rst, payload_length): appended by Linux's build
  // for all formats but gzip, which ends in it by itself (RFC 1952, ISIZE).
  constexpr std::size_t kSizeWord = 4;
  if (payload_.size() <= kSizeWord) {
    return fail(ErrorCode::kBadKernel, "setup header: payload_length {:#x} is too short",
                payload_.size());
  }
  unpacked_size_ = load_le(payload_.last(kSizeWord));
  if (*unpacked_size_ == 0 || *unpacked_size_ > kMaxUnpackedSize) {
    return fail(ErrorCode::kBadKernel,
                "the payload's appended size is {} bytes, at most {} are accepted", *unpacked_size_,
                kMaxUnpackedSize);
  }
  if (compression_ != Compression::kGzip) payload_ = payload_.first(payload_.size() - kSizeWord);
  return {};
}

Result<ElfFacts> KernelImage::examine_payload() const {
  ElfStream::Options options;
  options.file_size = unpacked_size_;
  options.keep_tail = true;
  ElfStream stream(std::move(options));
  VMM_TRY(unpack_payload(*this, stream));
  return facts_of(stream);
}

namespace {

Result<void> unpack(const KernelImage& image, ElfStream& stream) {
  const std::span<const std::byte> payload = image.payload();
  if (!image.compression()) {
    VMM_TRY(stream.write(payload));
    return stream.finish();
  }
  const std::uint64_t limit = image.unpacked_size().value_or(KernelImage::kMaxUnpackedSize);
  const DecompressResult result = VMM_TRY(decompress(*image.compression(), payload, limit, stream));
  if (image.unpacked_size() && result.produced != *image.unpacked_size()) {
    return fail(ErrorCode::kBadKernel,
                "{} payload unpacks to {} bytes, the image says {} (its last four bytes)",
                to_string(*image.compression()), result.produced, *image.unpacked_size());
  }
  const auto rest = payload.subspan(static_cast<std::size_t>(result.consumed));
  if (std::ranges::any_of(rest, [](std::byte b) { return b != std::byte{0}; })) {
    return fail(ErrorCode::kBadKernel, "{} payload ends after {} of {} bytes; what follows is junk",
                to_string(*image.compression()), result.consumed, payload.size());
  }
  return stream.finish();
}

}  // namespace

Result<void> unpack_payload(const KernelImage& image, ElfStream& stream) {
  if (!image.can_unpack()) {
    return fail(ErrorCode::kBadKernel, "{}: there is no payload of a known format to unpack",
                image.name());
  }
  return with_context(unpack(image, stream),
                      image.format() == ImageFormat::kBzImage
                          ? fmt::format("{}: the kernel in its payload", image.name())
                          : image.name());
}

ElfFacts facts_of(const ElfStream& stream) {
  ElfFacts facts;
  facts.headers = stream.headers();
  facts.notes = stream.notes();
  facts.size = stream.size();
  facts.pvh = pvh_entry(facts.notes);
  const auto table = parse_relocations(stream.tail());
  if (table && *table) facts.relocations = (*table)->entries();
  facts.looks_like_linux = looks_like_linux(facts.headers, facts.notes);
  return facts;
}

}  // namespace vmm::loader
