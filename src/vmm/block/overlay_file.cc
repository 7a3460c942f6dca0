#include "vmm/block/overlay_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "base/size.h"

namespace vmm::block {
namespace {

constexpr std::uint64_t kSector = 512;

// The next multiple of a page; disks are far from where this could overflow.
std::uint64_t to_page(std::uint64_t n) { return (n + 4095) & ~std::uint64_t{4095}; }

Result<void> write_whole(int fd, std::uint64_t at, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(at));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return fail_errno(n < 0 ? errno : ENOSPC, "Write {} bytes", bytes.size());
    at += static_cast<std::uint64_t>(n);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

Result<void> read_whole(int fd, std::uint64_t at, std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::pread(fd, bytes.data(), bytes.size(), static_cast<off_t>(at));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "Read {} bytes", bytes.size());
    if (n == 0) return fail(ErrorCode::kIo, "Read {} bytes: the file ends", bytes.size());
    at += static_cast<std::uint64_t>(n);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

std::uint64_t modification_time(const ImageFile& image) {
  struct stat status {};
  if (::fstat(image.fd(), &status) != 0 || S_ISBLK(status.st_mode)) return 0;
  return static_cast<std::uint64_t>(status.st_mtim.tv_sec) * 1'000'000'000U +
         static_cast<std::uint64_t>(status.st_mtim.tv_nsec);
}

Result<void> fill(int fd, const OverlayLayout& layout, std::uint64_t disk_size,
                  std::uint64_t image_time) {
  if (::ftruncate(fd, static_cast<off_t>(layout.end)) != 0) {
    return fail_errno(errno, "Make it {} long", format_size(layout.end));
  }
  // The header last: without one it is no overlay yet.
  if (::fsync(fd) != 0) return fail_errno(errno, "Bring it to the disk");
  OverlayHeader header;
  header.size = disk_size;
  header.image_time = image_time;
  header.map = layout.map;
  header.data = layout.data;
  VMM_TRY(write_whole(fd, 0, std::as_bytes(std::span(&header, 1))));
  if (::fsync(fd) != 0) return fail_errno(errno, "Bring its header to the disk");
  return {};
}

// A new name is durable when its directory is.
void sync_directory_of(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  const UniqueFd fd(
      ::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd) (void)::fsync(fd.get());
}

// True when the file was not there and now is an empty overlay.
Result<bool> make_if_missing(const std::string& path, const OverlayLayout& layout,
                             const ImageFile& image, std::uint64_t disk_size) {
  const UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd) {
    if (errno == EEXIST) return false;
    return tl::unexpected<Error>(Error::from_errno(
        errno, ErrorCode::kBadConfig, fmt::format("Overlay '{}' cannot be created", path)));
  }
  if (auto filled = fill(fd.get(), layout, disk_size, modification_time(image)); !filled) {
    (void)::unlink(path.c_str());
    return with_context(tl::expected<bool, Error>(tl::unexpect, std::move(filled).error()),
                        fmt::format("Create overlay '{}'", path));
  }
  sync_directory_of(path);
  return true;
}

Result<void> check_header(const ImageFile& file, const OverlayHeader& header,
                          const OverlayLayout& layout, std::uint64_t disk_size,
                          const ImageFile& image) {
  const std::string& name = file.name();
  if (header.magic == decltype(header.magic){}) {
    return fail(
        ErrorCode::kBadConfig,
        "'{}' begins with zeroes: an overlay that was never finished, or no overlay. Remove "
        "it, or name another file",
        name);
  }
  if (header.magic != kOverlayMagic) {
    return fail(ErrorCode::kBadConfig, "'{}' is no overlay: name a file that does not exist yet",
                name);
  }
  if (header.version != kOverlayVersion) {
    return fail(ErrorCode::kBadConfig, "Overlay '{}' has version {}, this program knows {}", name,
                std::uint32_t{header.version}, kOverlayVersion);
  }
  if (header.size != disk_size) {
    return fail(
        ErrorCode::kBadConfig,
        "Overlay '{}' is of a disk of {} bytes, but '{}' has {}: it belongs to another image, "
        "or the image was resized",
        name, std::uint64_t{header.size}, image.name(), disk_size);
  }
  if (header.sector_size != kSector || header.map != layout.map || header.data != layout.data) {
    return fail(ErrorCode::kBadConfig, "Overlay '{}' is damaged: its header contradicts itself",
                name);
  }
  const std::uint64_t length = VMM_TRY(file.size());
  if (length < layout.end) {
    return fail(ErrorCode::kBadConfig,
                "Overlay '{}' is damaged: it has {} bytes and should have {}", name, length,
                layout.end);
  }
  return {};
}

// Pages that lie in holes of the file have no bit set.
Result<SectorMap> load_map(const ImageFile& file, const OverlayLayout& layout,
                           std::uint64_t disk_size) {
  SectorMap map(disk_size / kSector);
  std::array<std::byte, SectorMap::kPageSize> page{};
  const std::uint64_t end = layout.map + map.pages() * SectorMap::kPageSize;
  for (std::uint64_t at = layout.map; at < end;) {
    const off_t data = ::lseek(file.fd(), static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    if (data > 0) at = std::max(at, static_cast<std::uint64_t>(data) & ~std::uint64_t{4095});
    if (at >= end) break;
    VMM_TRY(read_whole(file.fd(), at, page));
    map.load((at - layout.map) / SectorMap::kPageSize, page);
    at += SectorMap::kPageSize;
  }
  return map;
}

}  // namespace

OverlayLayout::OverlayLayout(std::uint64_t disk_size) {
  data = map + to_page((disk_size / kSector + 7) / 8);
  end = data + disk_size;
}

Result<Overlay> open_overlay(const std::string& path, const ImageFile& image,
                             std::uint64_t disk_size, bool direct, const Log& log) {
  const OverlayLayout layout(disk_size);
  const bool made = VMM_TRY(make_if_missing(path, layout, image, disk_size));
  ImageFile file =
      VMM_TRY(ImageFile::open(path, ImageAccess{.read_only = false, .direct = direct}));
  OverlayHeader header;
  VMM_TRY(with_context(read_whole(file.fd(), 0, std::as_writable_bytes(std::span(&header, 1))),
                       fmt::format("Read the header of overlay '{}'", path)));
  VMM_TRY(check_header(file, header, layout, disk_size, image));
  if (!made && header.image_time != modification_time(image)) {
    log(LogLevel::kWarning, "disk",
        "image '{}' was changed after its overlay '{}' was made: together they may make no sense",
        image.name(), path);
  }
  SectorMap map = VMM_TRY(with_context(load_map(file, layout, disk_size),
                                       fmt::format("Read the map of overlay '{}'", path)));
  return Overlay{std::move(file), layout, std::move(map), true};
}

Result<Overlay> throw_away_overlay(const std::string& directory, std::uint64_t disk_size) {
  UniqueFd fd(::open(directory.c_str(), O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600));
  if (!fd) {  // a file system that cannot make nameless files
    std::string name = directory + "/vmm-cow-XXXXXX";
    fd.reset(::mkostemp(name.data(), O_CLOEXEC));
    if (fd) (void)::unlink(name.c_str());
  }
  if (!fd) {
    return tl::unexpected<Error>(
        Error::from_errno(errno, ErrorCode::kBadConfig,
                          fmt::format("Make a temporary file in '{}' for what the guest writes; "
                                      "TMPDIR names another directory",
                                      directory)));
  }
  const OverlayLayout layout(disk_size);
  if (::ftruncate(fd.get(), static_cast<off_t>(layout.end)) != 0) {
    return fail_errno(errno, "Make a temporary file of {} in '{}'", format_size(layout.end),
                      directory);
  }
  return Overlay{ImageFile::unnamed(std::move(fd), "temporary overlay in " + directory), layout,
                 SectorMap(disk_size / kSector), false};
}

}  // namespace vmm::block
