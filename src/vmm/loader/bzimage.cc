#include "vmm/loader/bzimage.h"

#include <algorithm>

#include "base/le.h"

namespace vmm::loader {
namespace {

constexpr std::size_t kSector = 512;
constexpr std::size_t kHeaderFixedEnd = 0x202;  // boot.rst: the header ends at 0x202 + byte 0x201
constexpr std::uint64_t kMagicHdrS = 0x53726448;
constexpr std::uint16_t kBootFlag = 0xaa55;
constexpr std::size_t kMaxVersionString = 256;

std::uint64_t number(std::span<const std::byte> file, std::size_t offset, std::size_t size) {
  return load_le(file.subspan(offset, size));
}

// Reads a field that exists since `since`; older images keep the assumption in `field`. Every
// offset is below kSetupHeaderEnd, which parse_setup_header() has checked to be in the file.
template <typename T>
void read_field(T& field, std::span<const std::byte> file, std::size_t offset,
                std::uint16_t version, std::uint16_t since) {
  if (version < since) return;
  field = static_cast<T>(number(file, offset, sizeof(T)));
}

std::string version_string(std::span<const std::byte> setup, std::uint64_t offset) {
  std::string text;
  if (offset == 0) return text;
  for (std::uint64_t at = offset + kSector; at < setup.size() && text.size() < kMaxVersionString;
       ++at) {
    const char c = std::to_integer<char>(setup[static_cast<std::size_t>(at)]);
    if (c == '\0') return text;
    text += c >= ' ' && c <= '~' ? c : '?';
  }
  return text;
}

Result<std::optional<FileRange>> payload_range(std::span<const std::byte> file,
                                               const SetupHeader& header) {
  if (!header.at_least(0x0208)) return std::nullopt;
  const std::uint64_t offset = number(file, 0x248, 4);
  const std::uint64_t length = number(file, 0x24c, 4);
  if (length == 0) return std::nullopt;
  const std::uint64_t begin = header.protected_mode.begin + offset;  // 64-bit sums of 32-bit fields
  const std::uint64_t end = begin + length;
  if (end > file.size()) {
    return fail(ErrorCode::kBadKernel,
                "setup header: payload_offset {:#x} and payload_length {:#x} end at byte {:#x}, "
                "past the end of the file of {:#x} bytes",
                offset, length, end, file.size());
  }
  return FileRange{begin, end};
}

}  // namespace

bool is_bzimage(std::span<const std::byte> file) noexcept {
  return file.size() >= kHeaderFixedEnd + 4 && number(file, 0x1fe, 2) == kBootFlag &&
         number(file, 0x202, 4) == kMagicHdrS;
}

Result<SetupHeader> parse_setup_header(std::span<const std::byte> file) {
  if (!is_bzimage(file)) {
    return fail(ErrorCode::kBadKernel,
                "setup header: boot_flag 0xaa55 or the magic HdrS is missing");
  }
  SetupHeader header;
  const auto sectors = static_cast<std::uint8_t>(number(file, kSetupHeaderAt, 1));
  header.setup_sects = sectors == 0 ? std::uint8_t{4} : sectors;
  const std::size_t setup_size = (std::size_t{header.setup_sects} + 1) * kSector;
  if (setup_size >= file.size()) {
    return fail(ErrorCode::kBadKernel,
                "setup header: setup_sects {} puts the kernel at byte {}, past the end of the file "
                "of {} bytes",
                header.setup_sects, setup_size, file.size());
  }
  header.protected_mode = {setup_size, file.size()};

  const auto version = static_cast<std::uint16_t>(number(file, 0x206, 2));
  header.version = version;
  if (version < 0x0200 || version >= 0x0300) {
    return fail(ErrorCode::kBadKernel,
                "setup header: version is {:#x}: only protocol 2.xx is known", version);
  }
  header.syssize = static_cast<std::uint32_t>(number(file, 0x1f4, version < 0x0204 ? 2 : 4));
  const std::uint64_t claimed = setup_size + std::uint64_t{header.syssize} * 16;
  if (version >= 0x0204 && claimed >= file.size() + 16) {
    return fail(ErrorCode::kBadKernel,
                "setup header: syssize {:#x} wants a file of {} bytes, it has {}: truncated",
                header.syssize, claimed, file.size());
  }
  read_field(header.loadflags, file, 0x211, version, 0x0200);
  read_field(header.code32_start, file, 0x214, version, 0x0200);
  read_field(header.initrd_addr_max, file, 0x22c, version, 0x0203);
  read_field(header.kernel_alignment, file, 0x230, version, 0x0205);
  std::uint8_t relocatable = 0;
  read_field(relocatable, file, 0x234, version, 0x0205);
  header.relocatable_kernel = relocatable != 0;
  read_field(header.min_alignment, file, 0x235, version, 0x020a);
  read_field(header.xloadflags, file, 0x236, version, 0x020c);
  read_field(header.cmdline_size, file, 0x238, version, 0x0206);
  read_field(header.pref_address, file, 0x258, version, 0x020a);
  read_field(header.init_size, file, 0x260, version, 0x020a);
  read_field(header.handover_offset, file, 0x264, version, 0x020b);
  read_field(header.kernel_info_offset, file, 0x268, version, 0x020f);
  header.kernel_version = version_string(file.first(setup_size), number(file, 0x20e, 2));
  header.payload = VMM_TRY(payload_range(file, header));

  // setup_size is at least two sectors, so all of this is in the file.
  const std::size_t end =
      std::min<std::size_t>(kHeaderFixedEnd + number(file, 0x201, 1), kSetupHeaderEnd);
  const auto bytes = file.subspan(kSetupHeaderAt, end - kSetupHeaderAt);
  header.bytes.assign(bytes.begin(), bytes.end());
  return header;
}

}  // namespace vmm::loader
