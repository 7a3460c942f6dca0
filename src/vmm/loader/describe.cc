#include "vmm/loader/describe.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/join.h"
#include "base/size.h"
#include "vmm/loader/entry.h"
#include "vmm/loader/load_multiboot.h"

namespace vmm::loader {
namespace {

constexpr std::array<std::pair<std::uint16_t, const char*>, 7> kXloadflags{{
    {kXlfKernel64, "KERNEL_64"},
    {kXlfCanBeLoadedAbove4G, "CAN_BE_LOADED_ABOVE_4G"},
    {kXlfEfiHandover32, "EFI_HANDOVER_32"},
    {kXlfEfiHandover64, "EFI_HANDOVER_64"},
    {kXlfEfiKexec, "EFI_KEXEC"},
    {kXlf5Level, "5LEVEL"},
    {kXlf5LevelEnabled, "5LEVEL_ENABLED"},
}};

constexpr std::array<std::pair<BootProtocol, const char*>, 6> kProtocols{{
    {BootProtocol::kAuto, "auto"},
    {BootProtocol::kLinux64, "linux64"},
    {BootProtocol::kBzimage, "bzimage"},
    {BootProtocol::kPvh, "pvh"},
    {BootProtocol::kMultiboot, "multiboot"},
    {BootProtocol::kMultiboot2, "multiboot2"},
}};

const char* format_name(ImageFormat format) {
  switch (format) {
    case ImageFormat::kBzImage:
      return "Linux bzImage";
    case ImageFormat::kElf:
      return "ELF";
    case ImageFormat::kCompressedElf:
      return "compressed ELF";
    case ImageFormat::kMultiboot:
      return "Multiboot image";
  }
  return "unknown";
}

std::vector<std::string> xloadflag_names(std::uint16_t flags) {
  std::vector<std::string> names;
  for (const auto& [bit, name] : kXloadflags) {
    if ((flags & bit) != 0) names.emplace_back(name);
  }
  return names;
}

// A way to boot and why it is closed; an empty reason: it is open.
struct Way {
  std::string name;
  std::string reason;
};

std::vector<Way> ways(const KernelImage& image, const Result<ElfFacts>& facts) {
  std::vector<Way> result;
  for (const auto& [protocol, name] : kProtocols) {
    const Result<Entry> entry = find_entry(image, facts, protocol);
    result.push_back({name, entry ? "" : entry.error().message()});
  }
  return result;
}

class Lines {
 public:
  explicit Lines(std::string first) : text_(std::move(first)) { text_ += '\n'; }
  void add(std::string_view label, std::string_view value) {
    text_ += fmt::format("  {:<15} {}\n", label, value);
  }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

void add_setup_header(Lines& lines, const SetupHeader& setup) {
  lines.add("version", setup.kernel_version.empty() ? "not given" : setup.kernel_version);
  lines.add("own entries", fmt::format("16-bit (real mode, not used), 32-bit{}",
                                       setup.has_64bit_entry() ? ", 64-bit" : ""));
  if (setup.at_least(0x020a)) {
    lines.add("memory", fmt::format("pref_address {:#x}, init_size {:#x} ({})", setup.pref_address,
                                    setup.init_size, format_size(setup.init_size)));
  }
  lines.add("relocatable", setup.relocatable_kernel
                               ? fmt::format("yes, kernel_alignment {:#x}", setup.kernel_alignment)
                               : "no");
  lines.add("command line", fmt::format("at most {} bytes", setup.cmdline_size));
  lines.add("initrd", fmt::format("up to address {:#x}", setup.initrd_addr_max));
  if (setup.at_least(0x020c)) {
    lines.add("xloadflags", fmt::format("{:#x} {}", setup.xloadflags,
                                        join(xloadflag_names(setup.xloadflags), " ")));
  }
}

std::string payload_line(const KernelImage& image) {
  if (image.payload().empty()) return "none that is described in the header";
  if (!image.can_unpack()) return "packed in no format that is known here";
  const std::string how(image.compression() ? to_string(*image.compression()) : "not compressed");
  return fmt::format("{}, {}", how, format_size(image.payload().size()));
}

void add_elf(Lines& lines, const ElfFacts& facts) {
  lines.add("kernel", fmt::format("ELF{}, {} unpacked, {} segments at {}",
                                  facts.headers.is_64bit ? 64 : 32, format_size(facts.size),
                                  facts.headers.segments.size(), facts.headers.extent()));
  lines.add("ELF entry", fmt::format("{:#x}{}", facts.headers.entry,
                                     facts.headers.physical_entry() ? "" : ", in no segment"));
  lines.add("PVH entry", facts.pvh ? fmt::format("{}", *facts.pvh) : "none");
  lines.add("relocations", facts.relocations
                               ? fmt::format("{}: KASLR is possible", *facts.relocations)
                               : "none: KASLR is not possible");
  std::vector<std::string> notes;
  for (const ElfNote& note : facts.notes) {
    notes.push_back(fmt::format("{}/{:#x}", note.owner, note.type));
  }
  lines.add("notes", notes.empty() ? "none" : join(notes, ", "));
}

constexpr std::array<MultibootVersion, 2> kMultibootVersions{MultibootVersion::k1,
                                                             MultibootVersion::k2};

std::string multiboot_line(const MultibootEntry& entry) {
  const MultibootHeader& header = entry.header;
  return fmt::format("version {}, header at {:#x}, {}, entry {}{}{}",
                     static_cast<int>(header.version), header.offset,
                     header.placement
                         ? fmt::format("image at {} by its addresses", header.placement->extent())
                         : "loaded by its ELF headers",
                     entry.address, header.wants_video ? ", asks for a video mode" : "",
                     header.relocatable ? ", could be moved" : "");
}

void add_multiboot(Lines& lines, const KernelImage& image) {
  for (const MultibootVersion version : kMultibootVersions) {
    if (!image.has_multiboot(version)) continue;
    const Result<MultibootEntry> entry = multiboot_entry(image, version);
    lines.add("Multiboot", entry ? multiboot_line(*entry)
                                 : fmt::format("version {}, unusable: {}",
                                               static_cast<int>(version), entry.error().message()));
  }
}

nlohmann::ordered_json multiboot_json(const KernelImage& image) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const MultibootVersion version : kMultibootVersions) {
    if (!image.has_multiboot(version)) continue;
    nlohmann::ordered_json json;
    json["version"] = static_cast<int>(version);
    const Result<MultibootEntry> entry = multiboot_entry(image, version);
    if (entry) {
      const MultibootHeader& header = entry->header;
      json["header_offset"] = header.offset;
      json["entry"] = entry->address.value;
      json["load_address"] = nullptr;
      if (header.placement) json["load_address"] = header.placement->image.base().value;
      json["wants_video"] = header.wants_video;
      json["relocatable"] = header.relocatable;
    } else {
      json["error"] = entry.error().message();
    }
    list.push_back(std::move(json));
  }
  return list;
}

nlohmann::ordered_json elf_json(const ElfFacts& facts) {
  nlohmann::ordered_json json;
  json["class"] = facts.headers.is_64bit ? 64 : 32;
  json["unpacked_size"] = facts.size;
  json["entry"] = facts.headers.entry;
  json["pvh_entry"] = nullptr;
  if (facts.pvh) json["pvh_entry"] = facts.pvh->value;
  json["looks_like_linux"] = facts.looks_like_linux;
  json["relocations"] = nullptr;
  if (facts.relocations) json["relocations"] = *facts.relocations;
  json["segments"] = nlohmann::ordered_json::array();
  for (const ElfSegment& s : facts.headers.segments) {
    json["segments"].push_back({{"offset", s.file.begin},
                                {"file_size", s.file.size()},
                                {"physical_address", s.memory.base().value},
                                {"virtual_address", s.virtual_address},
                                {"memory_size", s.memory.size()},
                                {"flags", s.flags}});
  }
  json["notes"] = nlohmann::ordered_json::array();
  for (const ElfNote& note : facts.notes) {
    json["notes"].push_back({{"owner", note.owner}, {"type", note.type}});
  }
  return json;
}

nlohmann::ordered_json setup_json(const SetupHeader& setup) {
  nlohmann::ordered_json json;
  json["version"] = setup.version;
  json["kernel_version"] = setup.kernel_version;
  json["setup_sects"] = setup.setup_sects;
  json["syssize"] = setup.syssize;
  json["loadflags"] = setup.loadflags;
  json["xloadflags"] = setup.xloadflags;
  json["xloadflag_names"] = xloadflag_names(setup.xloadflags);
  json["code32_start"] = setup.code32_start;
  json["pref_address"] = setup.pref_address;
  json["init_size"] = setup.init_size;
  json["relocatable_kernel"] = setup.relocatable_kernel;
  json["kernel_alignment"] = setup.kernel_alignment;
  json["min_alignment"] = setup.min_alignment;
  json["cmdline_size"] = setup.cmdline_size;
  json["initrd_addr_max"] = setup.initrd_addr_max;
  json["handover_offset"] = setup.handover_offset;
  json["kernel_info_offset"] = setup.kernel_info_offset;
  return json;
}

}  // namespace

std::string describe_text(const KernelImage& image) {
  const auto& setup = image.setup_header();
  Lines lines(fmt::format(
      "{}: {}, {}{}", image.name(), format_name(image.format()), format_size(image.bytes().size()),
      setup ? fmt::format(", boot protocol {}.{:02}", setup->version >> 8, setup->version & 0xff)
            : ""));
  if (setup) add_setup_header(lines, *setup);
  const bool packed = image.compression().has_value();
  const bool elf = image.format() != ImageFormat::kMultiboot;
  if (packed || image.format() == ImageFormat::kBzImage) lines.add("payload", payload_line(image));
  add_multiboot(lines, image);
  const Result<ElfFacts> facts = image.examine_payload();
  if (!elf) {
    // What it is stands in its header.
  } else if (facts) {
    add_elf(lines, *facts);
  } else if (image.can_unpack()) {
    lines.add("kernel", fmt::format("cannot be read: {}", facts.error().message()));
  }
  std::string open;
  std::vector<Way> closed;
  for (Way& way : ways(image, facts)) {
    if (way.reason.empty()) {
      open += (open.empty() ? "" : ", ") + way.name;
    } else {
      closed.push_back(std::move(way));
    }
  }
  lines.add("boots with", open.empty() ? "nothing" : open);
  for (const Way& way : closed) lines.add("not with", way.name + ": " + way.reason);
  return lines.take();
}

std::string describe_json(const KernelImage& image) {
  nlohmann::ordered_json json;
  json["name"] = image.name();
  json["format"] = format_name(image.format());
  json["size"] = image.bytes().size();
  json["setup_header"] = nullptr;
  if (image.setup_header()) json["setup_header"] = setup_json(*image.setup_header());
  json["payload_size"] = image.payload().size();
  json["compression"] = nullptr;
  if (image.compression()) json["compression"] = to_string(*image.compression());
  const Result<ElfFacts> facts = image.examine_payload();
  json["multiboot"] = multiboot_json(image);
  json["kernel"] = nullptr;
  if (facts) {
    json["kernel"] = elf_json(*facts);
  } else {
    json["kernel_error"] = facts.error().message();
  }
  json["boot"] = nlohmann::ordered_json::object();
  for (const Way& way : ways(image, facts)) {
    json["boot"][way.name] = {{"possible", way.reason.empty()}, {"reason", way.reason}};
  }
  // File names may hold bytes that are no UTF-8.
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace vmm::loader
