#include "cli/share_option.h"

#include <algorithm>
#include <array>

#include "cli/option_values.h"

namespace vmm::cli {
namespace {

constexpr std::string_view kForms = "DIRECTORY:TAG, path=DIRECTORY,tag=TAG or socket=FILE,tag=TAG";

bool has_keys(std::string_view text) {
  constexpr std::array<std::string_view, 3> kKeys{"path=", "socket=", "tag="};
  return std::any_of(kKeys.begin(), kKeys.end(),
                     [text](std::string_view key) { return text.starts_with(key); });
}

Result<ShareSpec> parse_keys(std::string_view text) {
  ShareSpec share;
  for (const std::string_view part : split(text, ',')) {
    const auto equals = part.find('=');
    const std::string_view key = part.substr(0, equals);
    const std::string_view value =
        equals == std::string_view::npos ? std::string_view() : part.substr(equals + 1);
    if (part == "ro") {
      share.read_only = true;
    } else if (key == "path" && !value.empty()) {
      share.directory = value;
    } else if (key == "socket" && !value.empty()) {
      share.socket = value;
    } else if (key == "tag" && !value.empty()) {
      share.tag = value;
    } else {
      return fail(ErrorCode::kBadConfig, "'{}' is unknown: {}, and ro are known", part, kForms);
    }
  }
  return share;
}

Result<ShareSpec> parse_short(std::string_view text) {
  constexpr std::string_view kReadOnly = ",ro";
  ShareSpec share;
  if (text.ends_with(kReadOnly)) {
    share.read_only = true;
    text.remove_suffix(kReadOnly.size());
  }
  // A directory's name may have colons of its own.
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos) {
    return fail(ErrorCode::kBadConfig, "'{}' has no tag, by which the guest mounts it: {}", text,
                kForms);
  }
  share.directory = text.substr(0, colon);
  share.tag = text.substr(colon + 1);
  return share;
}

}  // namespace

Result<ShareSpec> parse_share(std::string_view text) {
  constexpr std::size_t kMostTag = 36;  // VIRTIO 1.2, 5.11.4
  const ShareSpec share = VMM_TRY(has_keys(text) ? parse_keys(text) : parse_short(text));
  if (share.directory.empty() == share.socket.empty()) {
    return fail(ErrorCode::kBadConfig,
                "either a directory or a file server's socket is to be given: {}", kForms);
  }
  if (share.tag.empty() || share.tag.size() > kMostTag) {
    return fail(ErrorCode::kBadConfig, "the tag '{}' has {} bytes: 1 to {} are possible", share.tag,
                share.tag.size(), kMostTag);
  }
  if (share.read_only && !share.socket.empty()) {
    return fail(ErrorCode::kBadConfig,
                "ro is not possible with socket=: the file server that runs already decides");
  }
  return share;
}

}  // namespace vmm::cli
