#include "vmm/boot_guest.h"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <vector>

#include "firmware/builtin_guest.h"
#include "vmm/generation_id.h"
#include "vmm/loader/flat.h"
#include "vmm/loader/initrd.h"
#include "vmm/loader/load_kernel.h"
#include "vmm/loader/load_multiboot.h"
#include "vmm/loader/module.h"
#include "vmm/x86/acpi.h"
#include "vmm/x86/bios_stub.h"
#include "vmm/x86/boot_params.h"
#include "vmm/x86/e820.h"
#include "vmm/x86/layout.h"
#include "vmm/x86/mptable.h"
#include "vmm/x86/multiboot_info.h"
#include "vmm/x86/pvh.h"
#include "vmm/x86/smbios.h"

namespace vmm {
namespace {

// What every way to boot works with.
struct Boot {
  const VmConfig& config;
  HostPlan& plan;
  const GuestMemory& memory;
  bool hpet;
  const PciBus& pci;
  const std::optional<DeviceHandle<FwCfg>>& fw_cfg;
  std::span<const x86::VirtioMmioSlot> virtio_mmio;
  const loader::LoadedKernel& kernel;  // for a KernelBoot
};

// An initrd in guest memory, and how much of it there is.
using Initrd = std::optional<GpaRange>;

std::uint64_t random_bits() {
  std::uint64_t bits = 0;
  while (::getrandom(&bits, sizeof bits, 0) != sizeof bits && errno == EINTR) {
  }
  return bits;
}

// RAM below the device hole, from 1 MiB on: where kernels and initrds go.
GpaRange low_ram(const GuestMemory& memory) {
  const GpaRange first = memory.regions().front().range();
  const std::uint64_t size = first.size() - std::min(first.size(), x86::kExtendedRamBase.value);
  return x86::fixed_range(x86::kExtendedRamBase.value, size);
}

Result<Initrd> load_initrd(const Boot& boot, const KernelBoot& source,
                           const loader::LoadedKernel& kernel) {
  if (!source.initrd) return Initrd();
  loader::InitrdOptions options;
  options.kernel = kernel.occupied;
  options.highest = Gpa(std::min(low_ram(boot.memory).end().value, kernel.initrd_addr_max + 1));
  options.unpack = source.initrd_unpack == Toggle::kAuto ? boot.plan.unpack_initrd
                                                         : source.initrd_unpack == Toggle::kOn;
  loader::LoadedInitrd initrd = VMM_TRY(loader::load_initrd(*source.initrd, boot.memory, options));
  for (std::string& note : initrd.notes) boot.plan.decisions.push_back(std::move(note));
  return Initrd(initrd.range);
}

x86::AcpiConfig acpi_config(const Boot& boot) {
  x86::AcpiConfig acpi;
  acpi.cpus = boot.config.cpus.count;
  acpi.interrupt_controllers = boot.plan.irqchip != IrqchipMode::kNone;
  acpi.fw_cfg_port = FwCfg::kSelectorPort;
  acpi.pci = x86::AcpiPciRoot{x86::kPciConfig, x86::kPciMemory, boot.pci.interrupts()};
  if (boot.pci.hotplug_slots() != 0) {
    acpi.pci->hotplug = x86::AcpiPciHotplug{.slots = boot.pci.hotplug_slots()};
  }
  acpi.hpet = boot.hpet;
  acpi.generation_id = x86::AcpiGenerationId{kGenerationId, kGenerationIdGpe};
  if (boot.config.virtio_transport == VirtioTransport::kMmio) {
    for (std::size_t i = 0; i < boot.virtio_mmio.size(); ++i) {
      acpi.devices.push_back(x86::virtio_mmio_aml(boot.virtio_mmio[i], i));
    }
  }
  return acpi;
}

// The tables as files of fw_cfg: the RSDP, and all that lies behind it.
Result<void> show_acpi_tables(const Boot& boot, Gpa rsdp) {
  constexpr std::size_t kRsdpSize = 36;
  std::vector<std::byte> area(static_cast<std::size_t>(x86::kAcpiTables.size()));
  VMM_TRY(boot.memory.read(rsdp, area));
  const auto used = std::find_if(area.rbegin(), area.rend(), [](std::byte b) {
                      return b != std::byte{0};
                    }).base();
  const auto behind = area.begin() + kRsdpSize;
  return boot.fw_cfg->with([&](FwCfg& fw_cfg) -> Result<void> {
    VMM_TRY(fw_cfg.add_file("etc/acpi/rsdp", {area.begin(), behind}));
    VMM_TRY(fw_cfg.add_file("etc/acpi/tables", {behind, std::max(behind, used)}));
    return fw_cfg.add_file(std::string(kGenerationIdFile), generation_id_file());
  });
}

// What any kernel may look for in low memory: ACPI, SMBIOS, the MP table for those that know
// nothing else, and the BIOS's own words. Returns the RSDP's address.
Result<Gpa> write_platform_tables(const Boot& boot) {
  VMM_TRY(x86::write_bios_data(boot.memory));
  if (boot.plan.irqchip != IrqchipMode::kNone) {
    x86::MpConfig mp;
    mp.cpus = boot.config.cpus.count;
    VMM_TRY(x86::write_mp_table(boot.memory, mp));
  }
  x86::SmbiosConfig smbios;
  smbios.cpus = boot.config.cpus.count;
  smbios.ram_bytes = boot.memory.size();
  smbios.uuid = boot.config.uuid;
  VMM_TRY(x86::write_smbios_tables(boot.memory, smbios));
  const Gpa rsdp = VMM_TRY(x86::write_acpi_tables(boot.memory, acpi_config(boot)));
  VMM_TRY(write_generation_id(boot.memory, kGenerationId));
  if (boot.fw_cfg) VMM_TRY(show_acpi_tables(boot, rsdp));
  return rsdp;
}

struct LinuxBoot {
  std::string_view cmdline;
  std::span<const std::byte> setup_header = {};
  Initrd initrd = {};
  bool kaslr = false;
};

// The zero page and all that it points at.
Result<Gpa> write_zero_page(const Boot& boot, const LinuxBoot& linux) {
  const x86::E820Map map = x86::machine_e820(boot.memory.size());
  x86::BootParams params;
  params.setup_header = linux.setup_header;
  params.cmdline = VMM_TRY(
      x86::write_cmdline(boot.memory, linux.cmdline, x86::cmdline_limit(linux.setup_header)));
  params.initrd = linux.initrd;
  params.e820 = map.entries();
  params.rsdp = VMM_TRY(write_platform_tables(boot));
  const std::vector<x86::SetupData> nodes{VMM_TRY(x86::make_rng_seed())};
  params.setup_data = VMM_TRY(x86::write_setup_data(boot.memory, nodes));
  params.kaslr = linux.kaslr;
  return x86::write_boot_params(boot.memory, params);
}

// The same for a kernel that is entered by PVH.
Result<Gpa> write_start_info(const Boot& boot, std::string_view cmdline,
                             std::span<const x86::PvhModule> modules) {
  const x86::E820Map map = x86::machine_e820(boot.memory.size());
  x86::PvhStartInfo info;
  info.cmdline = VMM_TRY(x86::write_cmdline(boot.memory, cmdline, x86::cmdline_limit({})));
  info.modules = modules;
  info.e820 = map.entries();
  info.rsdp = VMM_TRY(write_platform_tables(boot));
  return x86::write_pvh_start_info(boot.memory, info);
}

Result<x86::EntryState> load(const Boot& boot, const BuiltinGuest& guest) {
  VMM_TRY(boot.memory.write(Gpa(firmware::kBuiltinGuestAddress), firmware::builtin_guest()));
  const Gpa zero_page = VMM_TRY(write_zero_page(boot, {.cmdline = guest.cmdline}));
  return x86::enter_linux64(boot.memory, Gpa(firmware::kBuiltinGuestAddress), zero_page);
}

// "FILE ARGUMENTS", as a Multiboot kernel gets to know itself and its modules.
std::string with_name(const std::filesystem::path& file, std::string_view arguments) {
  return arguments.empty() ? file.string() : fmt::format("{} {}", file.string(), arguments);
}

// Modules lie behind the kernel and before `end`, one after the other: where each is.
Result<std::vector<GpaRange>> load_modules(const Boot& boot, const KernelBoot& source, Gpa end) {
  std::vector<GpaRange> ranges;
  Gpa free = std::max(boot.kernel.occupied.end(), low_ram(boot.memory).base());
  for (const BootModule& module : source.modules) {
    const std::uint64_t left = end > free ? end.offset_from(free) : 0;
    const GpaRange room = GpaRange::create(free, left).value_or(GpaRange());
    ranges.push_back(VMM_TRY(loader::load_module(module.file, boot.memory, room)));
    free = ranges.back().end();
  }
  return ranges;
}

Result<x86::EntryState> enter_multiboot(const Boot& boot, const KernelBoot& source,
                                        const loader::LoadedKernel& kernel) {
  if (source.initrd) {
    return fail(ErrorCode::kBadConfig,
                "{}: a Multiboot kernel takes modules (--module), not an initrd",
                source.kernel.string());
  }
  const auto ranges = VMM_TRY(load_modules(boot, source, low_ram(boot.memory).end()));
  std::vector<x86::MultibootModule> modules;
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    const BootModule& module = source.modules[i];
    modules.push_back({ranges[i], with_name(module.file, module.arguments)});
  }
  const x86::E820Map map = x86::machine_e820(boot.memory.size());
  const std::string cmdline = with_name(source.kernel, source.cmdline);
  x86::MultibootInfo info;
  info.cmdline = cmdline;
  info.modules = modules;
  info.e820 = map.entries();
  info.rsdp = VMM_TRY(write_platform_tables(boot));
  VMM_TRY(x86::write_bios_stub(boot.memory));
  if (kernel.relocatable) info.load_base = kernel.occupied.base();
  if (const auto& sections = kernel.sections) {
    info.sections = {sections->count, sections->entry_size, sections->string_index,
                     sections->headers};
  }
  if (kernel.entry_kind == loader::EntryKind::kMultiboot) {
    const Gpa at = VMM_TRY(x86::write_multiboot_info(boot.memory, info));
    return x86::enter_multiboot(boot.memory, kernel.entry, x86::kMultibootMagic, at);
  }
  const Gpa at = VMM_TRY(x86::write_multiboot2_info(boot.memory, info));
  return x86::enter_multiboot(boot.memory, kernel.entry, x86::kMultiboot2Magic, at);
}

// The initrd is the first module; a PVH kernel is told arguments without file names.
Result<x86::EntryState> enter_pvh(const Boot& boot, const KernelBoot& source, const Initrd& initrd,
                                  std::string_view cmdline) {
  const Gpa end = initrd ? initrd->base() : low_ram(boot.memory).end();
  const auto ranges = VMM_TRY(load_modules(boot, source, end));
  std::vector<x86::PvhModule> modules;
  if (initrd) modules.push_back({*initrd, {}});
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    modules.push_back({ranges[i], source.modules[i].arguments});
  }
  const Gpa info = VMM_TRY(write_start_info(boot, cmdline, modules));
  return x86::enter_pvh(boot.memory, boot.kernel.entry, info);
}

// The default words are for a Linux only.
std::string whole_cmdline(const Boot& boot, const KernelBoot& source) {
  if (!boot.kernel.linux) return source.cmdline;
  const std::string devices = boot.config.virtio_transport == VirtioTransport::kMmioCmdline
                                  ? x86::virtio_mmio_parameters(boot.virtio_mmio)
                                  : std::string();
  const bool both = !source.linux_cmdline.empty() && !source.cmdline.empty();
  return source.linux_cmdline + (both ? " " : "") + source.cmdline + devices;
}

bool is_multiboot(const loader::LoadedKernel& kernel) {
  return kernel.entry_kind == loader::EntryKind::kMultiboot ||
         kernel.entry_kind == loader::EntryKind::kMultiboot2;
}

Result<x86::EntryState> load(const Boot& boot, const KernelBoot& source) {
  const loader::LoadedKernel& kernel = boot.kernel;
  boot.plan.decisions.insert(boot.plan.decisions.end(), kernel.notes.begin(), kernel.notes.end());
  if (is_multiboot(kernel)) return enter_multiboot(boot, source, kernel);
  const bool pvh = kernel.entry_kind == loader::EntryKind::kPvh;
  if (!source.modules.empty() && !pvh) {
    return fail(ErrorCode::kBadConfig,
                "{}: modules are for Multiboot and PVH kernels, this is entered as neither",
                source.kernel.string());
  }
  const Initrd initrd = VMM_TRY(load_initrd(boot, source, kernel));
  const std::string cmdline = whole_cmdline(boot, source);
  if (pvh) return enter_pvh(boot, source, initrd, cmdline);
  const LinuxBoot linux{cmdline, kernel.setup_header, initrd, kernel.kaslr_slide != 0};
  const Gpa zero_page = VMM_TRY(write_zero_page(boot, linux));
  return kernel.entry_kind == loader::EntryKind::kLinux32
             ? x86::enter_linux32(boot.memory, kernel.entry, zero_page)
             : x86::enter_linux64(boot.memory, kernel.entry, zero_page);
}

Result<x86::EntryState> load(const Boot& boot, const FlatBoot& flat) {
  const GpaRange image =
      VMM_TRY(loader::load_flat(flat.image, flat.name, flat.address, boot.memory));
  switch (flat.mode) {
    case FlatMode::kReal:
      return x86::enter_flat_real(flat.address);
    case FlatMode::kProtected:
      return x86::enter_flat_protected(boot.memory, image);
    case FlatMode::kLong:
      break;
  }
  return x86::enter_flat_long(boot.memory, image);
}

Result<x86::EntryState> load(const Boot&, const SnapshotBoot&) {
  return fail(ErrorCode::kBadConfig, "A snapshot is not booted: it goes on");
}

}  // namespace

Result<loader::LoadedKernel> load_kernel(const KernelBoot& source, const GuestMemory& memory) {
  const auto image = VMM_TRY(loader::KernelImage::open(source.kernel));
  loader::LoadOptions options;
  options.protocol = source.protocol;
  options.bounds.highest = low_ram(memory).end();
  if (loader::multiboot_version(image, source.protocol)) {
    // Small ones lie in conventional memory, where there is more than their own.
    options.bounds.lowest = Gpa(0);
    options.bounds.keep_out = {x86::kBdaArea, x86::kBootArea, x86::kUpperArea};
  }
  options.memory_is_zero = true;
  if (source.kaslr) options.kaslr = loader::Kaslr{random_bits, {low_ram(memory)}};
  return loader::load_kernel(image, memory, options);
}

Result<x86::EntryState> boot_guest(const VmConfig& config, HostPlan& plan, const Machine& machine,
                                   const loader::LoadedKernel& kernel) {
  const Boot boot{config,       plan,           machine.memory,      machine.pit_switch != nullptr,
                  *machine.pci, machine.fw_cfg, machine.virtio_mmio, kernel};
  return std::visit([&boot](const auto& source) { return load(boot, source); }, config.boot);
}

}  // namespace vmm
