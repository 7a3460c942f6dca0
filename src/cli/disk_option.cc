#include "cli/disk_option.h"

#include "cli/disk_rates.h"
#include "cli/option_values.h"

namespace vmm::cli {
namespace {

// What the specification and the device have room for.
constexpr std::size_t kMostSerial = 20;
constexpr std::uint64_t kMostQueues = 16;

Result<void> set_value(std::string_view key, std::string_view value, DiskSpec& disk) {
  if (value.empty()) return fail(ErrorCode::kBadConfig, "'{}=' lacks what it is set to", key);
  if (key == "path") {
    if (!disk.image.path.empty()) {
      return fail(ErrorCode::kBadConfig, "two images, '{}' and '{}': give each its own --disk",
                  disk.image.path, value);
    }
    disk.image.path = value;
  } else if (key == "vhost-user-blk") {
    disk.vhost_socket = value;
  } else if (key == "serial") {
    if (value.size() > kMostSerial) {
      return fail(ErrorCode::kBadConfig, "the serial number '{}' is longer than {} bytes", value,
                  kMostSerial);
    }
    disk.serial = value;
  } else if (key == "queues") {
    const std::uint64_t queues = VMM_TRY(parse_number(value, kMostQueues));
    if (queues == 0) return fail(ErrorCode::kBadConfig, "a disk without queues has no use");
    disk.queues = static_cast<std::uint16_t>(queues);
  } else if (key == "iothread") {
    disk.io_threads = VMM_TRY(parse_io_threads(value));
  } else if (key == "cow") {
    disk.image.cow = CowMode::kKeep;
    disk.image.cow_file = value;
  } else if (is_disk_rate(key)) {
    VMM_TRY(set_disk_rate(key, value, disk.image.rates));
  } else {
    return fail(ErrorCode::kBadConfig,
                "'{}=' is unknown: path, vhost-user-blk, serial, queues, iothread, cow and the "
                "limits (bps, iops) take values",
                key);
  }
  return {};
}

// nbd:URI, or the URI alone. Nothing when the part is something else.
std::optional<std::string_view> nbd_uri(std::string_view part) {
  for (const std::string_view scheme : {"nbd://", "nbds://", "nbd+unix://", "nbds+unix://"}) {
    if (part.starts_with(scheme)) return part;
  }
  if (part.starts_with("nbd:")) return part.substr(4);
  return std::nullopt;
}

Result<void> set_nbd(std::string_view uri, DiskSpec& disk) {
  if (uri.find("://") == std::string_view::npos) {
    return fail(ErrorCode::kBadConfig,
                "'{}' is no NBD URI: write nbd://HOST[:PORT]/[EXPORT] or "
                "nbd+unix:///[EXPORT]?socket=PATH (nbds... with TLS)",
                uri);
  }
  if (!disk.image.nbd.empty()) {
    return fail(ErrorCode::kBadConfig, "two servers, '{}' and '{}': give each its own --disk",
                disk.image.nbd, uri);
  }
  disk.image.nbd = uri;
  return {};
}

Result<void> set_word(std::string_view word, DiskSpec& disk) {
  if (word == "ro") {
    disk.image.read_only = true;
  } else if (word == "cow") {
    disk.image.cow = CowMode::kThrowAway;
  } else if (word == "direct") {
    disk.image.direct = true;
  } else if (word == "discard") {
    disk.image.discard = true;
  } else if (word == "reconnect") {
    disk.reconnect = true;
  } else {
    return fail(ErrorCode::kBadConfig,
                "'{}' is unknown: the image is path=FILE or nbd:URI, and ro, cow, direct and "
                "discard are words",
                word);
  }
  return {};
}

Result<void> set_part(std::string_view part, DiskSpec& disk) {
  if (const auto uri = nbd_uri(part)) return set_nbd(*uri, disk);
  const auto equals = part.find('=');
  if (equals == std::string_view::npos) return set_word(part, disk);
  return set_value(part.substr(0, equals), part.substr(equals + 1), disk);
}

// A server's disk is neither opened nor cached here.
Result<void> check_nbd(const DiskImage& image) {
  if (!image.path.empty()) {
    return fail(ErrorCode::kBadConfig, "'{}' and '{}' are two disks: give each its own --disk",
                image.path, image.nbd);
  }
  if (image.cow != CowMode::kNone) {
    return fail(
        ErrorCode::kBadConfig,
        "cow needs an image file; a server can keep an overlay itself (nbdkit --filter=cow)");
  }
  if (image.direct) {
    return fail(ErrorCode::kBadConfig, "direct needs an image file: the cache is the server's");
  }
  return {};
}

// What only the process that serves the disk can say.
Result<void> check_vhost(const DiskSpec& disk) {
  const DiskImage& image = disk.image;
  if (!image.path.empty() || !image.nbd.empty()) {
    return fail(ErrorCode::kBadConfig,
                "an image and vhost-user-blk= are two disks: give each its own --disk");
  }
  if (image.rates != BlockRates{} || image.read_only || image.direct || image.discard ||
      image.cow != CowMode::kNone || !disk.serial.empty() || !disk.io_threads.empty()) {
    return fail(ErrorCode::kBadConfig,
                "only queues= and reconnect go with vhost-user-blk=: everything else is for the "
                "process that serves the disk to decide");
  }
  return {};
}

}  // namespace

Result<DiskSpec> parse_disk(std::string_view text) {
  DiskSpec disk;
  for (const std::string_view part : split(text, ',')) {
    VMM_TRY(set_part(part, disk));
  }
  if (!disk.vhost_socket.empty()) {
    VMM_TRY(check_vhost(disk));
    return disk;
  }
  if (disk.reconnect) {
    return fail(ErrorCode::kBadConfig, "reconnect is for vhost-user-blk=SOCKET only");
  }
  if (!disk.image.nbd.empty()) {
    VMM_TRY(check_nbd(disk.image));
  } else if (disk.image.path.empty()) {
    return fail(ErrorCode::kBadConfig,
                "an image is missing: path=FILE, nbd:URI or vhost-user-blk=SOCKET");
  }
  if (disk.image.read_only && disk.image.cow != CowMode::kNone) {
    return fail(ErrorCode::kBadConfig,
                "ro and cow exclude each other: with cow the image is not written anyway, with ro "
                "there is nothing to keep");
  }
  if (disk.image.read_only && disk.image.discard) {
    return fail(ErrorCode::kBadConfig, "discard would change an image that is to stay: without ro");
  }
  if (!disk.image.rates.limited() && disk.image.rates != BlockRates{}) {
    return fail(ErrorCode::kBadConfig, "burst belongs to a limit: bps=SIZE or iops=N");
  }
  return disk;
}

}  // namespace vmm::cli
