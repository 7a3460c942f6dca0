#include "vmm/loader/entry.h"

#include <algorithm>
#include <bit>

#include "base/checked.h"
#include "vmm/loader/load_multiboot.h"

namespace vmm::loader {
namespace {

// PVH or Linux: what the user insists on, else what the image is.
Result<EntryKind> elf_entry_kind(const KernelImage& image, const ElfFacts& facts,
                                 BootProtocol protocol) {
  const bool linux_inside = image.format() == ImageFormat::kBzImage || facts.looks_like_linux;
  if (protocol == BootProtocol::kPvh || (protocol == BootProtocol::kAuto && !linux_inside)) {
    if (facts.pvh) return EntryKind::kPvh;
    return fail(ErrorCode::kBadKernel, "{}: {}no PVH entry (ELF note Xen, type 18)", image.name(),
                protocol == BootProtocol::kPvh ? "" : "no sign of Linux and ");
  }
  if (facts.headers.is_64bit) return EntryKind::kLinux64;
  if (protocol == BootProtocol::kLinux64) {
    return fail(ErrorCode::kBadKernel, "{}: the kernel is an ELF32, it has no 64-bit entry",
                image.name());
  }
  return EntryKind::kLinux32;
}

Result<OwnCode> place_own_code(const SetupHeader& setup) {
  if ((setup.loadflags & kLoadedHigh) == 0) {
    return fail(ErrorCode::kBadKernel,
                "setup header: loadflags {:#x} lacks LOADED_HIGH: a zImage, which only starts from "
                "real mode",
                setup.loadflags);
  }
  const bool has_preference = setup.at_least(0x020a) && setup.pref_address != 0;
  const bool movable = setup.relocatable_kernel && has_preference;
  const Gpa base(movable ? setup.pref_address : setup.code32_start);
  const auto code = GpaRange::create(base, setup.protected_mode.size());
  if (!code) {
    return fail(ErrorCode::kBadKernel, "setup header: {} {} and the kernel's {:#x} bytes wrap",
                movable ? "pref_address" : "code32_start", base, setup.protected_mode.size());
  }
  std::uint64_t runtime = base.value;
  if (setup.relocatable_kernel) {
    const std::uint64_t alignment = setup.kernel_alignment;
    const auto aligned = std::has_single_bit(alignment) ? checked_align_up(runtime, alignment)
                                                        : std::optional<std::uint64_t>();
    if (!aligned) {
      return fail(ErrorCode::kBadKernel,
                  "setup header: kernel_alignment {:#x} of a relocatable kernel at {:#x} is not a "
                  "power of two, or wraps",
                  alignment, runtime);
    }
    runtime = *aligned;
  } else if (has_preference) {
    runtime = setup.pref_address;
  }
  const auto working = GpaRange::create(Gpa(runtime), setup.init_size);
  if (!working) {
    return fail(ErrorCode::kBadKernel, "setup header: pref_address {:#x} and init_size {:#x} wrap",
                runtime, setup.init_size);
  }
  const Gpa low = std::min(code->base(), working->base());
  const Gpa high = std::max(code->end(), working->end());
  OwnCode own;
  own.code = *code;
  own.occupied = GpaRange::create(low, high.offset_from(low)).value_or(*code);
  constexpr std::uint64_t k64BitEntry = 0x200;  // boot.rst, "64-bit Boot Protocol"
  if (setup.has_64bit_entry() && code->size() > k64BitEntry) {
    own.entry = {EntryKind::kLinux64, Gpa(base.value + k64BitEntry)};
  } else {
    own.entry = {EntryKind::kLinux32, base};
  }
  return own;
}

}  // namespace

bool enters_itself(const KernelImage& image) {
  return image.format() == ImageFormat::kBzImage && !image.can_unpack();
}

Result<Entry> elf_entry(const KernelImage& image, const ElfFacts& facts, BootProtocol protocol) {
  const EntryKind kind = VMM_TRY(elf_entry_kind(image, facts, protocol));
  if (kind == EntryKind::kPvh) {
    if (facts.headers.holds_code(*facts.pvh)) return Entry{kind, *facts.pvh};
    return fail(ErrorCode::kBadKernel,
                "{}: the PVH entry {} of its ELF note lies in no loaded segment", image.name(),
                *facts.pvh);
  }
  if (const auto address = facts.headers.physical_entry()) return Entry{kind, *address};
  return fail(ErrorCode::kBadKernel, "{}: ELF header: e_entry {:#x} lies in no loaded segment",
              image.name(), facts.headers.entry);
}

Result<OwnCode> own_code(const KernelImage& image) {
  if (!image.setup_header()) {
    return fail(ErrorCode::kBadKernel, "{}: not a bzImage, it has no entry of its own",
                image.name());
  }
  return with_context(place_own_code(*image.setup_header()), image.name());
}

Result<Entry> find_entry(const KernelImage& image, const Result<ElfFacts>& facts,
                         BootProtocol protocol) {
  if (const auto version = multiboot_version(image, protocol)) {
    const MultibootEntry entry = VMM_TRY(multiboot_entry(image, *version));
    return Entry{*version == MultibootVersion::k1 ? EntryKind::kMultiboot : EntryKind::kMultiboot2,
                 entry.address};
  }
  if (protocol == BootProtocol::kBzimage ||
      (protocol == BootProtocol::kAuto && enters_itself(image))) {
    const OwnCode own = VMM_TRY(own_code(image));
    return own.entry;
  }
  if (!facts) return tl::unexpected<Error>(facts.error());
  return elf_entry(image, *facts, protocol);
}

}  // namespace vmm::loader
