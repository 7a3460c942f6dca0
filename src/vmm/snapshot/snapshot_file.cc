#include "vmm/snapshot/snapshot_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/checked.h"
#include "base/crc32c.h"
#include "base/le.h"
#include "base/size.h"
#include "vmm/x86/layout.h"

namespace vmm {
namespace {

constexpr std::array<char, 8> kMagic{'V', 'M', 'M', 'S', 'N', 'A', 'P', '\n'};
constexpr std::uint32_t kVersion = 1;
constexpr std::uint32_t kIncrementVersion = 2;
constexpr std::uint64_t kMostName = 4096;  // PATH_MAX
constexpr std::uint64_t kMostState = MiB(512);
// Of the page list: a machine of 4 TiB whose every second page is there.
constexpr std::uint64_t kMostExtents = std::uint64_t{1} << 29;

struct Section {
  Le64 offset, size;
  Le32 crc, reserved;
};

struct Header {
  std::array<char, 8> magic = kMagic;
  Le32 version;
  Le32 crc;  // of the header with this field zero
  Le64 file_size;
  Le64 ram_offset, ram_size;
  Section state, pages;
  Section base;  // of an increment; other files have nothing there
};
constexpr std::size_t kWholeHeader = 88, kIncrementHeader = 112;
static_assert(sizeof(Header) == kIncrementHeader);
static_assert(sizeof(Header) <= SnapshotFile::kRamOffset);

struct ListedExtent {
  Le64 first;
  Le32 pages, crc;
};
static_assert(sizeof(ListedExtent) == 16);

// The base's section, followed by the base's name.
struct BaseRecord {
  Le64 size;
  Le32 header, state, pages, reserved;
};
static_assert(sizeof(BaseRecord) == 24);

Result<void> write_all(int file, std::span<const std::byte> bytes, std::uint64_t at) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(file, bytes.data(), bytes.size(), static_cast<off_t>(at));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return fail_errno(n < 0 ? errno : EIO, "Write {}", format_size(bytes.size()));
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    at += static_cast<std::uint64_t>(n);
  }
  return {};
}

Result<void> read_all(int file, std::span<std::byte> bytes, std::uint64_t at) {
  while (!bytes.empty()) {
    const ssize_t n = ::pread(file, bytes.data(), bytes.size(), static_cast<off_t>(at));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "Read {}", format_size(bytes.size()));
    if (n == 0) return fail(ErrorCode::kBadState, "It ends in the middle");
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    at += static_cast<std::uint64_t>(n);
  }
  return {};
}

std::uint32_t header_crc(Header header) {
  header.crc = 0;
  return crc32c(std::as_bytes(std::span(&header, 1))
                    .first(header.version == kVersion ? kWholeHeader : kIncrementHeader));
}

SnapshotId id_of(const Header& header) {
  return {.size = header.file_size,
          .header = header.crc,
          .state = header.state.crc,
          .pages = header.pages.crc};
}

// Of a file that is read: a section lies in it.
Result<void> check_section(const Section& section, std::uint64_t least, std::uint64_t file_size,
                           std::uint64_t most, const char* name) {
  const auto end = checked_add<std::uint64_t>(section.offset, section.size);
  if (!end || section.offset < least || *end > file_size || section.size > most) {
    return fail(ErrorCode::kBadState, "Its {} is not where it could be", name);
  }
  return {};
}

Result<std::vector<std::byte>> read_section(int file, const Section& section, const char* name) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(std::uint64_t{section.size}));
  VMM_TRY(read_all(file, bytes, section.offset));
  if (crc32c(bytes) != section.crc) return fail(ErrorCode::kBadState, "Its {} is damaged", name);
  return bytes;
}

Result<WholeState> read_state(std::vector<std::byte> cbor) {
  return from_document(StateDocument(VMM_TRY(PackedState::parse(std::move(cbor)))));
}

Result<Header> read_header(int file, std::uint64_t size) {
  Header header;
  if (size < sizeof header) return fail(ErrorCode::kBadState, "It is too short for a snapshot");
  VMM_TRY(read_all(file, std::as_writable_bytes(std::span(&header, 1)), 0));
  if (header.magic != kMagic) return fail(ErrorCode::kBadState, "It is no snapshot");
  if (header.version != kVersion && header.version != kIncrementVersion) {
    return fail(ErrorCode::kBadState, "It has version {}, this program knows {} and {}",
                std::uint32_t{header.version}, kVersion, kIncrementVersion);
  }
  if (header.crc != header_crc(header)) return fail(ErrorCode::kBadState, "Its header is damaged");
  if (header.file_size != size) {
    return fail(ErrorCode::kBadState, "It has {} bytes, and had {} when it was written", size,
                std::uint64_t{header.file_size});
  }
  if (header.ram_offset != SnapshotFile::kRamOffset || header.ram_size % RamImage::kPage != 0 ||
      header.ram_size > x86::kMaxRamBytes) {
    return fail(ErrorCode::kBadState, "Its memory is not where it could be");
  }
  const std::uint64_t behind = SnapshotFile::kRamOffset + header.ram_size;
  VMM_TRY(check_section(header.state, behind, size, kMostState, "state"));
  VMM_TRY(
      check_section(header.pages, behind, size, kMostExtents * sizeof(ListedExtent), "page list"));
  if (header.pages.size % sizeof(ListedExtent) != 0) {
    return fail(ErrorCode::kBadState, "Its page list is not where it could be");
  }
  if (header.version == kIncrementVersion) {
    VMM_TRY(check_section(header.base, behind, size, sizeof(BaseRecord) + kMostName, "base"));
    if (header.base.size <= sizeof(BaseRecord)) {
      return fail(ErrorCode::kBadState, "Its base has no name");
    }
  }
  return header;
}

Result<SnapshotBase> read_base(int file, const Section& section) {
  const auto bytes = VMM_TRY(read_section(file, section, "base"));
  BaseRecord record;
  std::memcpy(&record, bytes.data(), sizeof record);
  const std::span name = std::span(bytes).subspan(sizeof record);
  SnapshotBase base{.id = {.size = record.size,
                           .header = record.header,
                           .state = record.state,
                           .pages = record.pages},
                    .name = std::string(reinterpret_cast<const char*>(name.data()), name.size())};
  if (base.name.find('\0') != std::string::npos) {
    return fail(ErrorCode::kBadState, "Its base's name is none");
  }
  return base;
}

std::vector<std::byte> base_section(const SnapshotBase& base) {
  BaseRecord record;
  record.size = base.id.size;
  record.header = base.id.header;
  record.state = base.id.state;
  record.pages = base.id.pages;
  std::vector<std::byte> bytes(sizeof record + base.name.size());
  std::memcpy(bytes.data(), &record, sizeof record);
  std::memcpy(bytes.data() + sizeof record, base.name.data(), base.name.size());
  return bytes;
}

// One file, without what it is on. `name`: of the file, for errors that come later.
Result<LoadedSnapshot> load_file(UniqueFd file, const std::string& name) {
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) return fail_errno(errno, "Look at it");
  if (!S_ISREG(status.st_mode)) return fail(ErrorCode::kBadState, "It is no regular file");
  const Header header =
      VMM_TRY(read_header(file.get(), static_cast<std::uint64_t>(status.st_size)));
  auto bytes = VMM_TRY(read_section(file.get(), header.state, "state"));
  WholeState state = VMM_TRY(with_context(read_state(std::move(bytes)), "Its state"));
  if (header.ram_size != state.machine.shape.memory) {
    return fail(ErrorCode::kBadState, "Its memory is not as large as its machine's");
  }
  const auto list = VMM_TRY(read_section(file.get(), header.pages, "page list"));
  std::vector<RamImage::Extent> extents(list.size() / sizeof(ListedExtent));
  std::uint64_t own = 0;
  for (std::size_t i = 0; i < extents.size(); ++i) {
    ListedExtent listed;
    std::memcpy(&listed, list.data() + i * sizeof listed, sizeof listed);
    extents[i] = {.first = listed.first, .pages = listed.pages, .crc = listed.crc};
    own += extents[i].pages;
  }
  std::optional<SnapshotBase> base;
  if (header.version == kIncrementVersion) base = VMM_TRY(read_base(file.get(), header.base));
  RamImage ram =
      VMM_TRY(RamImage::open(std::move(file), SnapshotFile::kRamOffset,
                             x86::ram_ranges(header.ram_size), std::move(extents), name));
  return LoadedSnapshot{std::move(state), std::move(ram), id_of(header), std::move(base), own};
}

// `left`: how many files it may still be on.
Result<LoadedSnapshot> load(const std::string& path, unsigned left);

// The memory of an increment, whose file is `path`, together with its base's.
Result<void> put_on_base(LoadedSnapshot& loaded, const std::string& path, unsigned left) {
  if (left == 0) {
    return fail(ErrorCode::kBadState, "It is on more than {} others", kMostBases);
  }
  const std::string where = std::filesystem::path(path).parent_path() / loaded.base->name;
  const LoadedSnapshot base = VMM_TRY(with_context(load(where, left - 1), "Its base"));
  if (base.id != loaded.base->id) {
    return fail(ErrorCode::kBadState,
                "Its base {} is another snapshot than the one that it was made on: put that there",
                where);
  }
  loaded.ram = VMM_TRY(loaded.ram.on(base.ram));
  return {};
}

Result<LoadedSnapshot> load(const std::string& path, unsigned left) {
  UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file) return fail_errno(errno, "Open the snapshot {}", path);
  const std::string reading = fmt::format("Read the snapshot {}", path);
  LoadedSnapshot loaded = VMM_TRY(with_context(load_file(std::move(file), path), reading));
  if (loaded.base) VMM_TRY(with_context(put_on_base(loaded, path, left), reading));
  return loaded;
}

}  // namespace

Result<SnapshotFile> SnapshotFile::create(const std::string& path) {
  return SnapshotFile(VMM_TRY(ReplacedFile::create(path)));
}

Result<SnapshotId> SnapshotFile::seal(const WholeState& state, const RamImage& ram,
                                      const SnapshotBase* base) {
  const std::vector<std::uint8_t> document = nlohmann::json::to_cbor(to_document(state));
  const auto state_bytes = std::as_bytes(std::span(document));
  std::vector<ListedExtent> list(ram.extents().size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    list[i].first = ram.extents()[i].first;
    list[i].pages = ram.extents()[i].pages;
    list[i].crc = ram.extents()[i].crc;
  }
  if (state_bytes.size() > kMostState) {
    return fail(ErrorCode::kUnsupported, "A state of {} is larger than a file may have",
                format_size(state_bytes.size()));
  }
  Header header;
  header.version = base != nullptr ? kIncrementVersion : kVersion;
  header.ram_offset = kRamOffset;
  header.ram_size = ram.bytes();
  std::uint64_t end = kRamOffset + ram.bytes();
  const auto append = [&](Section& section, std::span<const std::byte> bytes) -> Result<void> {
    section.offset = end;
    section.size = bytes.size();
    section.crc = crc32c(bytes);
    end += bytes.size();
    return write_all(file_.fd(), bytes, section.offset);
  };
  VMM_TRY(append(header.state, state_bytes));
  VMM_TRY(append(header.pages, std::as_bytes(std::span(list))));
  if (base != nullptr) VMM_TRY(append(header.base, base_section(*base)));
  header.file_size = end;
  header.crc = header_crc(header);
  const auto head = std::as_bytes(std::span(&header, 1));
  VMM_TRY(write_all(file_.fd(), head.first(base != nullptr ? kIncrementHeader : kWholeHeader), 0));
  return id_of(header);
}

Result<std::string> name_of_base(const std::string& path, const std::string& base) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const fs::path to = fs::weakly_canonical(path, ignored);
  const fs::path from = fs::weakly_canonical(base, ignored);
  if (to == from) {
    return fail(
        ErrorCode::kBadConfig,
        "An increment cannot take the place of what it is made on, {}: give it another name", base);
  }
  return to.parent_path() == from.parent_path() ? from.filename().string() : from.string();
}

bool looks_like_snapshot(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  std::array<char, kMagic.size()> magic{};
  return file &&
         ::pread(file.get(), magic.data(), magic.size(), 0) == static_cast<ssize_t>(magic.size()) &&
         magic == kMagic;
}

Result<LoadedSnapshot> load_snapshot(const std::string& path) { return load(path, kMostBases); }

}  // namespace vmm
