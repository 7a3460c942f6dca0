#include "vmm/x86/pvh.h"

#include <vector>

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

Result<Gpa> put_string(GuestWriter& writer, const std::string& text) {
  return writer.put(std::as_bytes(std::span(text.c_str(), text.size() + 1)));
}

}  // namespace

Result<Gpa> write_pvh_start_info(const GuestMemory& memory, const PvhStartInfo& info) {
  GuestWriter writer(memory, kPvhInfo);
  // The structure points to the lists behind it, so it is written last.
  const Gpa start = VMM_TRY(writer.fill(sizeof(StartInfo), std::byte{0}));
  StartInfo head;
  head.cmdline_paddr = info.cmdline.value;
  head.rsdp_paddr = info.rsdp.value_or(Gpa(0)).value;
  std::vector<ModuleEntry> modules(info.modules.size());
  if (!modules.empty()) {
    const auto list = std::as_bytes(std::span(modules));
    head.nr_modules = static_cast<std::uint32_t>(modules.size());
    head.modlist_paddr = VMM_TRY(writer.fill(list.size(), std::byte{0})).value;
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
  for (std::size_t i = 0; i < modules.size(); ++i) {
    modules[i].paddr = info.modules[i].range.base().value;
    modules[i].size = info.modules[i].range.size();
    const std::string& cmdline = info.modules[i].cmdline;
    if (!cmdline.empty()) modules[i].cmdline_paddr = VMM_TRY(put_string(writer, cmdline)).value;
  }
  // What points to all that, in its place at the front.
  GuestWriter first(memory, kPvhInfo);
  VMM_TRY(first.put_value(head));
  VMM_TRY(first.put(std::as_bytes(std::span(modules))));
  return start;
}

}  // namespace vmm::x86
