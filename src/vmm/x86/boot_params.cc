#include "vmm/x86/boot_params.h"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>

#include "base/le.h"
#include "memory/guest_writer.h"
#include "vmm/x86/layout.h"

namespace vmm::x86 {
namespace {

// What a vmlinux without a setup header is told: the limits of every 64-bit kernel.
constexpr std::uint16_t kProtocolVersion = 0x020f;
constexpr std::uint32_t kDefaultCmdlineLimit = 2047;
constexpr std::uint32_t kOldCmdlineLimit = 255;  // before version 2.06
constexpr std::uint16_t kVersionWithCmdlineSize = 0x0206;
constexpr std::uint16_t kVidModeNormal = 0xffff;
constexpr std::uint16_t kXlfKernel64 = 1U << 0;
constexpr std::uint16_t kXlfAbove4g = 1U << 1;

// The node's own header: next (u64), type (u32), length (u32).
constexpr std::uint64_t kSetupDataHeaderSize = 16;
constexpr std::size_t kSeedBytes = 64;

// The page as it is built before it is copied to the guest in one piece. Offsets are constants of
// zero_page.
class Page {
 public:
  template <std::unsigned_integral T>
  void set(std::size_t offset, T value) noexcept {
    store_le(std::span(bytes_).subspan(offset, sizeof(T)), value);
  }
  std::uint8_t byte(std::size_t offset) const noexcept {
    return std::to_integer<std::uint8_t>(bytes_[offset]);
  }
  std::span<std::byte> from(std::size_t offset) noexcept {
    return std::span(bytes_).subspan(offset);
  }
  std::span<const std::byte> bytes() const noexcept { return bytes_; }

 private:
  std::array<std::byte, kPageSize> bytes_{};
};

// The header's value at a zero-page offset, or nothing when the header is too short for it.
template <std::unsigned_integral T>
std::optional<T> header_value(std::span<const std::byte> header, std::size_t offset) noexcept {
  const std::size_t at = offset - zero_page::kSetupHeader;
  if (header.size() < at + sizeof(T)) return std::nullopt;
  return static_cast<T>(load_le(header.subspan(at, sizeof(T))));
}

void copy_setup_header(Page& page, std::span<const std::byte> header) noexcept {
  // The jump instruction's displacement says where the header ends; the image's author wrote it.
  const std::size_t jump = header_value<std::uint16_t>(header, zero_page::kJump).value_or(0) >> 8;
  const std::size_t end = std::min(zero_page::kHeader + jump, zero_page::kSetupHeaderLimit);
  const std::size_t size = std::min(header.size(), end - zero_page::kSetupHeader);
  std::copy_n(header.begin(), size, page.from(zero_page::kSetupHeader).begin());
}

void make_setup_header(Page& page) noexcept {
  page.set<std::uint16_t>(zero_page::kBootFlag, 0xaa55);
  page.set(zero_page::kHeader, kSetupHeaderMagic);
  page.set(zero_page::kVersion, kProtocolVersion);
  page.set(zero_page::kLoadflags, kLoadedHigh);
  page.set<std::uint32_t>(zero_page::kInitrdAddrMax, 0x7fff'ffff);
  page.set<std::uint32_t>(zero_page::kKernelAlignment, 0x20'0000);
  page.set<std::uint16_t>(zero_page::kXloadflags, kXlfKernel64 | kXlfAbove4g);
  page.set(zero_page::kCmdlineSize, kDefaultCmdlineLimit);
}

void set_split(Page& page, std::size_t low, std::size_t high, std::uint64_t value) noexcept {
  page.set(low, static_cast<std::uint32_t>(value));
  page.set(high, static_cast<std::uint32_t>(value >> 32));
}

// KiB of RAM from 1 MiB on without a gap: what INT 15h E801 would say. Only for kernels that find
// no use for the map.
std::uint32_t alt_mem_kib(std::span<const E820Entry> e820) noexcept {
  for (const E820Entry& entry : e820) {
    if (entry.type == E820Type::kRam && entry.range.contains(kExtendedRamBase)) {
      const std::uint64_t kib = entry.range.end().offset_from(kExtendedRamBase) / KiB(1);
      return static_cast<std::uint32_t>(std::min<std::uint64_t>(kib, 0xffff'ffff));
    }
  }
  return 0;
}

}  // namespace

std::uint32_t cmdline_limit(std::span<const std::byte> setup_header) noexcept {
  if (setup_header.empty()) return kDefaultCmdlineLimit;
  const auto version = header_value<std::uint16_t>(setup_header, zero_page::kVersion);
  const auto size = header_value<std::uint32_t>(setup_header, zero_page::kCmdlineSize);
  if (!version || *version < kVersionWithCmdlineSize || !size) return kOldCmdlineLimit;
  return *size;
}

Result<Gpa> write_cmdline(const GuestMemory& memory, std::string_view cmdline,
                          std::uint32_t limit) {
  const std::uint64_t most = std::min<std::uint64_t>(limit, kCommandLine.size() - 1);
  if (cmdline.size() > most) {
    return fail(ErrorCode::kBadConfig,
                "The command line has {} bytes: this kernel takes at most {}", cmdline.size(),
                most);
  }
  if (const auto zero = cmdline.find('\0'); zero != std::string_view::npos) {
    return fail(ErrorCode::kBadConfig, "The command line has a zero byte at offset {}", zero);
  }
  GuestWriter writer(memory, kCommandLine);
  const Gpa at = VMM_TRY(writer.put(std::as_bytes(std::span(cmdline))));
  VMM_TRY(writer.fill(1, std::byte{0}));
  return at;
}

Result<SetupData> make_rng_seed() {
  SetupData node;
  node.type = SetupData::kRngSeed;
  node.bytes.resize(kSeedBytes);
  for (std::size_t done = 0; done < kSeedBytes;) {
    const ssize_t n = getrandom(node.bytes.data() + done, kSeedBytes - done, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return fail_errno(errno, "Get {} random bytes for the guest's seed", kSeedBytes);
    done += static_cast<std::size_t>(n);
  }
  return node;
}

Result<Gpa> write_setup_data(const GuestMemory& memory, std::span<const SetupData> nodes) {
  if (nodes.empty()) return Gpa(0);
  GuestWriter writer(memory, kSetupData);
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    const std::vector<std::byte>& bytes = nodes[i].bytes;
    const Gpa here = VMM_TRY(writer.align(8));
    const bool last = i + 1 == nodes.size();
    const std::uint64_t end = here.value + kSetupDataHeaderSize + bytes.size();
    const std::uint64_t next = last ? 0 : checked_align_up<std::uint64_t>(end, 8).value_or(0);
    VMM_TRY(writer.put_value(Le64(next)));
    VMM_TRY(writer.put_value(Le32(nodes[i].type)));
    VMM_TRY(writer.put_value(Le32(static_cast<std::uint32_t>(bytes.size()))));
    VMM_TRY(writer.put(bytes));
  }
  return kSetupData.base();
}

Result<Gpa> write_boot_params(const GuestMemory& memory, const BootParams& params) {
  if (params.e820.size() > zero_page::kE820MaxEntries) {
    return fail(ErrorCode::kBadConfig, "The e820 map has {} entries: the zero page holds {}",
                params.e820.size(), zero_page::kE820MaxEntries);
  }
  Page page;
  if (params.setup_header.empty()) {
    make_setup_header(page);
  } else {
    copy_setup_header(page, params.setup_header);
  }
  page.set(zero_page::kTypeOfLoader, kLoaderUndefined);
  page.set(zero_page::kVidMode, kVidModeNormal);
  const std::uint8_t others =
      page.byte(zero_page::kLoadflags) & static_cast<std::uint8_t>(~kKaslrFlag);
  page.set(zero_page::kLoadflags,
           static_cast<std::uint8_t>(others | (params.kaslr ? kKaslrFlag : std::uint8_t{0})));
  page.set(zero_page::kSetupData, params.setup_data.value);
  set_split(page, zero_page::kCmdLinePtr, zero_page::kExtCmdLinePtr, params.cmdline.value);
  const GpaRange initrd = params.initrd.value_or(GpaRange());
  set_split(page, zero_page::kRamdiskImage, zero_page::kExtRamdiskImage, initrd.base().value);
  set_split(page, zero_page::kRamdiskSize, zero_page::kExtRamdiskSize, initrd.size());
  page.set(zero_page::kAcpiRsdpAddr, params.rsdp.value_or(Gpa(0)).value);
  page.set(zero_page::kAltMemK, alt_mem_kib(params.e820));

  page.set(zero_page::kE820Entries, static_cast<std::uint8_t>(params.e820.size()));
  for (std::size_t i = 0; i < params.e820.size(); ++i) {
    const std::size_t at = zero_page::kE820Table + i * zero_page::kE820EntrySize;
    page.set(at, params.e820[i].range.base().value);
    page.set(at + 8, params.e820[i].range.size());
    page.set(at + 16, static_cast<std::uint32_t>(params.e820[i].type));
  }
  GuestWriter writer(memory, kZeroPage);
  return writer.put(page.bytes());
}

}  // namespace vmm::x86
