#include "vmm/x86/pvh.h"

#include "base/le.h"
#include "memory/guest_writer.h"
#include "vmm/x86/layout.h"

namespace vmm::x86 {
namespace {

struct StartInfo {
  Le32 magic = kPvhMagic;
  Le32 version = 1U;
  Le32 flags = 0U;
  Le32 nr_modules;
  Le64 modlist_paddr;
  Le64 cmdline_paddr;
  Le64 rsdp_paddr;
  Le64 memmap_paddr;
  Le32 memmap_entries;
  Le32 reserved;
};
static_assert(sizeof(StartInfo) == 56);

struct ModuleEntry {
  Le64 paddr;
  Le64 size;
  Le64 cmdline_paddr;
  Le64 reserved;
};
static_assert(sizeof(ModuleEntry) == 32);

struct MemmapEntry {
  Le64 address;
  Le64 size;
  Le32 type;
  Le32 reserved;
};
static_assert(sizeof(MemmapEntry) == 24);

}  // namespace

Result<Gpa> write_pvh_start_info(const GuestMemory& memory, const PvhStartInfo& info) {
  GuestWriter writer(memory, kPvhInfo);
  // The structure points to the lists behind it, so it is written last.
  const Gpa start = VMM_TRY(writer.fill(sizeof(StartInfo), std::byte{0}));
  StartInfo head;
  head.cmdline_paddr = info.cmdline.value;
  head.rsdp_paddr = info.rsdp.value_or(Gpa(0)).value;
  if (info.initrd) {
    ModuleEntry module;
    module.paddr = info.initrd->base().value;
    module.size = info.initrd->size();
    head.nr_modules = 1U;
    head.modlist_paddr = VMM_TRY(writer.put_value(module)).value;
  }
  if (!info.e820.empty()) {
    head.memmap_paddr = writer.position().value;
    head.memmap_entries = static_cast<std::uint32_t>(info.e820.size());
  }
  for (const E820Entry& entry : info.e820) {
    MemmapEntry wire;
    wire.address = entry.range.base().value;
    wire.size = entry.range.size();
    wire.type = static_cast<std::uint32_t>(entry.type);
    VMM_TRY(writer.put_value(wire));
  }
  GuestWriter first(memory, fixed_range(start.value, sizeof(StartInfo)));
  return first.put_value(head);
}

}  // namespace vmm::x86
