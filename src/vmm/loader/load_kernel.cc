#include "vmm/loader/load_kernel.h"

#include "vmm/loader/elf_stream.h"
#include "vmm/loader/load_multiboot.h"
#include "vmm/loader/relocations.h"

namespace vmm::loader {
namespace {

// Facts of the setup header that hold for every way in.
LoadedKernel begin_loaded(const KernelImage& image) {
  LoadedKernel loaded;
  if (const auto& setup = image.setup_header()) {
    loaded.setup_header = setup->bytes;
    loaded.initrd_addr_max = setup->initrd_addr_max;
    loaded.cmdline_size = setup->cmdline_size;
  }
  return loaded;
}

std::string describe_unpacking(const KernelImage& image, std::uint64_t size) {
  if (!image.compression()) {
    return fmt::format("{}: ELF of {} loaded", image.name(), format_size(size));
  }
  return fmt::format("{}: {} payload of {} unpacked on the host to {}", image.name(),
                     to_string(*image.compression()), format_size(image.payload().size()),
                     format_size(size));
}

// What can be seen before anything is unpacked.
Result<void> check_kaslr(const KernelImage& image, const LoadOptions& options) {
  if (options.protocol == BootProtocol::kPvh) {
    return fail(ErrorCode::kBadConfig, "{}: KASLR needs a Linux entry, the PVH entry cannot move",
                image.name());
  }
  const auto& setup = image.setup_header();
  if (setup && !setup->relocatable_kernel) {
    return fail(ErrorCode::kBadConfig,
                "{}: setup header: relocatable_kernel is 0: this kernel cannot be moved, KASLR is "
                "impossible",
                image.name());
  }
  return {};
}

Result<std::uint64_t> slide_of(const KernelImage& image, const LoadOptions& options,
                               const ElfHeaders& elf) {
  if (!elf.is_64bit) {
    return fail(ErrorCode::kBadConfig, "KASLR is for 64-bit kernels, this one is an ELF32");
  }
  constexpr std::uint64_t kDefaultAlignment = MiB(2);
  const auto& setup = image.setup_header();
  return choose_slide(*options.kaslr, elf, setup ? setup->kernel_alignment : kDefaultAlignment,
                      options.bounds.lowest, options.bounds.highest);
}

Result<std::uint64_t> relocate(const ElfStream& stream, const GuestMemory& memory) {
  const auto table = VMM_TRY(parse_relocations(stream.tail()));
  if (!table) {
    return fail(ErrorCode::kBadConfig,
                "no relocation table follows the ELF: this kernel cannot be moved, KASLR is "
                "impossible");
  }
  VMM_TRY(apply_relocations(*table, stream.headers(), stream.slide(), memory));
  return table->entries();
}

ElfStream::Options placement(const KernelImage& image, const GuestMemory& memory,
                             const LoadOptions& options) {
  ElfStream::Options placement;
  placement.memory = &memory;
  placement.bounds = options.bounds;
  placement.memory_is_zero = options.memory_is_zero;
  placement.file_size = image.unpacked_size();
  if (options.kaslr) {
    placement.keep_tail = true;
    placement.choose_slide = [&image, &options](const ElfHeaders& elf) {
      return slide_of(image, options, elf);
    };
  }
  return placement;
}

Result<LoadedKernel> load_unpacked(const KernelImage& image, const GuestMemory& memory,
                                   const LoadOptions& options) {
  if (options.kaslr) VMM_TRY(check_kaslr(image, options));
  ElfStream stream(placement(image, memory, options));
  VMM_TRY(unpack_payload(image, stream));
  const ElfFacts facts = facts_of(stream);

  LoadedKernel loaded = begin_loaded(image);
  loaded.linux = image.format() == ImageFormat::kBzImage || facts.looks_like_linux;
  const Entry entry = VMM_TRY(elf_entry(image, facts, options.protocol));
  loaded.entry_kind = entry.kind;
  // ElfStream has checked that the moved segments do not wrap.
  loaded.entry = Gpa(entry.address.value + stream.slide());
  const GpaRange linked = facts.headers.extent();
  loaded.occupied =
      GpaRange::create(Gpa(linked.base().value + stream.slide()), linked.size()).value_or(linked);
  loaded.notes.push_back(describe_unpacking(image, facts.size));
  if (!options.kaslr) return loaded;

  if (loaded.entry_kind == EntryKind::kPvh) {
    return fail(ErrorCode::kBadConfig, "{}: KASLR needs a Linux entry, the PVH entry cannot move",
                image.name());
  }
  const std::uint64_t relocated = VMM_TRY(with_context(relocate(stream, memory), image.name()));
  loaded.kaslr_slide = stream.slide();
  loaded.kaslr = true;
  loaded.notes.push_back(
      fmt::format("{}: KASLR put it at {}, {:#x} above its linked address ({} "
                  "relocations)",
                  image.name(), loaded.occupied.base(), loaded.kaslr_slide, relocated));
  return loaded;
}

Result<LoadedKernel> load_own_code(const KernelImage& image, const GuestMemory& memory,
                                   const LoadOptions& options) {
  const OwnCode own = VMM_TRY(own_code(image));
  const SetupHeader& setup = *image.setup_header();
  VMM_TRY(check_bounds(
      fmt::format(
          "{}: setup header: pref_address {:#x}, code32_start {:#x} and init_size {:#x} put "
          "it",
          image.name(), setup.pref_address, setup.code32_start, setup.init_size),
      own.occupied, options.bounds, memory));
  VMM_TRY(memory.write(own.code.base(), image.bytes().subspan(
                                            static_cast<std::size_t>(setup.protected_mode.begin))));
  LoadedKernel loaded = begin_loaded(image);
  loaded.linux = true;
  loaded.occupied = own.occupied;
  loaded.entry_kind = own.entry.kind;
  loaded.entry = own.entry.address;
  loaded.notes.push_back(
      fmt::format("{}: entered at its own {}-bit entry {}, it unpacks itself", image.name(),
                  loaded.entry_kind == EntryKind::kLinux64 ? 64 : 32, loaded.entry));
  return loaded;
}

}  // namespace

Result<LoadedKernel> load_kernel(const KernelImage& image, const GuestMemory& memory,
                                 const LoadOptions& options) {
  if (options.protocol == BootProtocol::kFlat) {
    return fail(ErrorCode::kBadConfig, "{}: a flat image is loaded by load_flat()", image.name());
  }
  if (const auto version = multiboot_version(image, options.protocol)) {
    return load_multiboot(image, memory, options, *version);
  }
  if (options.protocol == BootProtocol::kBzimage) return load_own_code(image, memory, options);
  if (options.protocol == BootProtocol::kAuto && enters_itself(image)) {
    LoadedKernel loaded = VMM_TRY(load_own_code(image, memory, options));
    loaded.notes.push_back(fmt::format("{}: {}", image.name(),
                                       image.payload().empty()
                                           ? "no payload fields, so it was not unpacked here"
                                           : "its payload is packed in no format known here"));
    return loaded;
  }
  return load_unpacked(image, memory, options);
}

}  // namespace vmm::loader
