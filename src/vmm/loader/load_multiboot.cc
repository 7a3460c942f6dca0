#include "vmm/loader/load_multiboot.h"

#include <algorithm>

#include "base/checked.h"
#include "base/size.h"
#include "vmm/loader/elf_stream.h"

namespace vmm::loader {
namespace {

Result<void> check_entry(const GpaRange& image, Gpa entry) {
  if (image.contains(entry)) return {};
  return fail(ErrorCode::kBadKernel, "Multiboot: the entry {} lies outside of the image at {}",
              entry, image);
}

Result<Gpa> elf_address(const MultibootHeader& header, const ElfHeaders& elf) {
  const auto entry = header.entry ? header.entry : elf.physical_entry();
  if (!entry) {
    return fail(ErrorCode::kBadKernel, "ELF header: e_entry {:#x} lies in no loaded segment",
                elf.entry);
  }
  VMM_TRY(check_entry(elf.extent(), *entry));
  return *entry;
}

Result<MultibootEntry> find_entry(std::span<const std::byte> file, MultibootVersion version) {
  const MultibootHeader header = VMM_TRY(parse_multiboot(file, version));
  if (header.placement) return MultibootEntry{header, *header.entry};
  const ElfHeaders elf =
      VMM_TRY(parse_elf_headers(file.first(std::min(file.size(), kElfHeaderWindow)), file.size()));
  return MultibootEntry{header, VMM_TRY(elf_address(header, elf))};
}

Result<LoadedKernel> load_placed(std::span<const std::byte> file, const MultibootHeader& header,
                                 const GuestMemory& memory, const LoadOptions& options) {
  const MultibootPlacement& placement = *header.placement;
  VMM_TRY(check_bounds("Multiboot header: its addresses put the image", placement.extent(),
                       options.bounds, memory));
  VMM_TRY(memory.write(placement.image.base(),
                       file.subspan(static_cast<std::size_t>(placement.file_offset),
                                    static_cast<std::size_t>(placement.image.size()))));
  if (!options.memory_is_zero) VMM_TRY(memory.fill(placement.bss, std::byte{0}));
  LoadedKernel loaded;
  loaded.occupied = placement.extent();
  loaded.entry = *header.entry;
  return loaded;
}

// From the first aligned address behind the image to where something else lies; may be empty.
GpaRange room_behind(const GpaRange& image, const LoadBounds& bounds) {
  constexpr std::uint64_t kAlignment = 16;
  const auto from = checked_align_up(image.end().value, kAlignment);
  if (!from) return {};
  Gpa end = bounds.highest;
  for (const GpaRange& taken : bounds.keep_out) {
    if (taken.end().value > *from) end = std::min(end, taken.base());
  }
  if (end.value <= *from) return {};
  return GpaRange::create(Gpa(*from), end.value - *from).value_or(GpaRange());
}

Result<LoadedKernel> load_elf(std::span<const std::byte> file, const MultibootHeader& header,
                              const GuestMemory& memory, const LoadOptions& options) {
  ElfStream::Options placement;
  placement.memory = &memory;
  placement.bounds = options.bounds;
  placement.memory_is_zero = options.memory_is_zero;
  placement.file_size = file.size();
  ElfStream stream(std::move(placement));
  VMM_TRY(stream.write(file));
  VMM_TRY(stream.finish());
  LoadedKernel loaded;
  loaded.occupied = stream.headers().extent();
  loaded.entry = VMM_TRY(elf_address(header, stream.headers()));
  // The sections that no segment holds follow the image.
  loaded.sections = load_elf_sections(file, memory, room_behind(loaded.occupied, options.bounds));
  if (loaded.sections) {
    const Gpa end = std::max(loaded.occupied.end(), loaded.sections->memory.end());
    const Gpa base = loaded.occupied.base();
    loaded.occupied = GpaRange::create(base, end.offset_from(base)).value_or(loaded.occupied);
  }
  return loaded;
}

Result<LoadedKernel> load(std::span<const std::byte> file, const GuestMemory& memory,
                          const LoadOptions& options, MultibootVersion version) {
  if (options.kaslr) {
    return fail(ErrorCode::kBadConfig, "KASLR is for Linux, a Multiboot image cannot move");
  }
  const MultibootHeader header = VMM_TRY(parse_multiboot(file, version));
  LoadedKernel loaded = VMM_TRY(header.placement ? load_placed(file, header, memory, options)
                                                 : load_elf(file, header, memory, options));
  loaded.entry_kind =
      version == MultibootVersion::k1 ? EntryKind::kMultiboot : EntryKind::kMultiboot2;
  loaded.relocatable = header.relocatable;
  loaded.notes.push_back(fmt::format("Multiboot version {} image of {} loaded at {}, entry {}",
                                     static_cast<int>(version), format_size(file.size()),
                                     loaded.occupied, loaded.entry));
  if (header.wants_video) {
    loaded.notes.emplace_back("it asks for a video mode: there is no display, and it is told so");
  }
  return loaded;
}

}  // namespace

std::optional<MultibootVersion> multiboot_version(const KernelImage& image, BootProtocol protocol) {
  if (protocol == BootProtocol::kMultiboot) return MultibootVersion::k1;
  if (protocol == BootProtocol::kMultiboot2) return MultibootVersion::k2;
  if (protocol != BootProtocol::kAuto) return std::nullopt;
  // Version 1 of both: it is what other loaders without firmware know.
  for (const MultibootVersion version : {MultibootVersion::k1, MultibootVersion::k2}) {
    if (image.has_multiboot(version)) return version;
  }
  return std::nullopt;
}

Result<MultibootEntry> multiboot_entry(const KernelImage& image, MultibootVersion version) {
  const UnpackedFile file = VMM_TRY(image.unpack());
  return with_context(find_entry(file.bytes(), version), image.name());
}

Result<LoadedKernel> load_multiboot(const KernelImage& image, const GuestMemory& memory,
                                    const LoadOptions& options, MultibootVersion version) {
  const UnpackedFile file = VMM_TRY(image.unpack());
  LoadedKernel loaded =
      VMM_TRY(with_context(load(file.bytes(), memory, options, version), image.name()));
  for (std::string& note : loaded.notes) note = fmt::format("{}: {}", image.name(), note);
  return loaded;
}

}  // namespace vmm::loader
