#include "vmm/core/write_core.h"

#include <elf.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>
#include <vector>

#include "base/replaced_file.h"
#include "base/size.h"
#include "vmm/core/core_notes.h"
#include "vmm/core/kernel_ranges.h"
#include "vmm/core/vmcoreinfo.h"
#include "vmm/snapshot/frozen_memory.h"
#include "vmm/snapshot/save.h"
#include "vmm/x86/msr_numbers.h"
#include "vmm/x86/paging_context.h"

namespace vmm {
namespace {

constexpr std::uint64_t kPage = RamImage::kPage;
// Of the VMCOREINFO note, whose text is found when its place must be known already.
constexpr std::uint64_t kReserved = kMostVmcoreinfo + 64;

std::uint64_t page_up(std::uint64_t size) { return (size + kPage - 1) / kPage * kPage; }

Result<std::vector<CoreCpu>> read_cpus(const CpuAccess& cpus) {
  std::vector<CoreCpu> all;
  for (std::size_t i = 0; i < cpus.count(); ++i) {
    const auto read = [&](kvm::VcpuFd& cpu, ExitDispatch&) -> Result<void> {
      CoreCpu state{.registers = VMM_TRY(cpu.registers()),
                    .system = VMM_TRY(cpu.system_registers())};
      if (const auto base = cpu.msr(x86::kMsrKernelGsBase)) state.kernel_gs_base = *base;
      all.push_back(std::move(state));
      return {};
    };
    VMM_TRY(cpus.with(i, read));
  }
  return all;
}

// Where everything is. RAM alone: what is plugged may vanish, and files are there anyway.
class Layout {
 public:
  Layout(const GuestMemory& memory, std::vector<MappedRange> mapped, std::uint64_t notes)
      : ram_bytes_(memory.size()), mapped_(std::move(mapped)) {
    for (const GuestRegion& region : memory.regions()) {
      if (region.kind() == RegionKind::kRam) ram_.push_back(region.range());
    }
    const std::uint64_t loads = ram_.size() + mapped_.size();
    notes_at_ = sizeof(Elf64_Ehdr) + (1 + loads) * sizeof(Elf64_Phdr);
    ram_at_ = page_up(notes_at_ + notes + kReserved);
  }

  std::uint64_t notes_at() const noexcept { return notes_at_; }
  std::uint64_t ram_at() const noexcept { return ram_at_; }
  std::uint64_t file_size() const noexcept { return ram_at_ + ram_bytes_; }

  // The ELF header and the program headers.
  std::vector<std::byte> headers(std::uint64_t notes) const {
    std::vector<Elf64_Phdr> table;
    table.push_back({.p_type = PT_NOTE,
                     .p_flags = 0,
                     .p_offset = notes_at_,
                     .p_vaddr = 0,
                     .p_paddr = 0,
                     .p_filesz = notes,
                     .p_memsz = notes,
                     .p_align = 4});
    std::uint64_t at = ram_at_;
    for (const GpaRange& range : ram_) {
      table.push_back(load(range.base().value, range.base().value, at, range.size()));
      at += range.size();
    }
    for (const MappedRange& range : mapped_) {
      table.push_back(load(range.virtual_address, range.physical_address,
                           offset_of(range.physical_address), range.size));
    }
    Elf64_Ehdr head{};
    std::copy_n(ELFMAG, SELFMAG, head.e_ident);
    head.e_ident[EI_CLASS] = ELFCLASS64;
    head.e_ident[EI_DATA] = ELFDATA2LSB;
    head.e_ident[EI_VERSION] = EV_CURRENT;
    head.e_type = ET_CORE;
    head.e_machine = EM_X86_64;
    head.e_version = EV_CURRENT;
    head.e_phoff = sizeof head;
    head.e_ehsize = sizeof head;
    head.e_phentsize = sizeof(Elf64_Phdr);
    head.e_phnum = static_cast<Elf64_Half>(table.size());
    const auto first = std::as_bytes(std::span(&head, 1));
    const auto rest = std::as_bytes(std::span(table));
    std::vector<std::byte> bytes(first.size() + rest.size());
    std::copy(rest.begin(), rest.end(), std::copy(first.begin(), first.end(), bytes.begin()));
    return bytes;
  }

 private:
  static Elf64_Phdr load(std::uint64_t virtual_address, std::uint64_t physical_address,
                         std::uint64_t offset, std::uint64_t size) {
    return {.p_type = PT_LOAD,
            .p_flags = PF_R | PF_W | PF_X,
            .p_offset = offset,
            .p_vaddr = virtual_address,
            .p_paddr = physical_address,
            .p_filesz = size,
            .p_memsz = size,
            .p_align = 0};
  }

  std::uint64_t offset_of(std::uint64_t physical) const noexcept {
    std::uint64_t at = ram_at_;
    for (const GpaRange& range : ram_) {
      if (range.contains(Gpa(physical))) return at + (physical - range.base().value);
      at += range.size();
    }
    return at;
  }

  std::uint64_t ram_bytes_;
  std::vector<GpaRange> ram_;  // in the order in which the file has it
  std::vector<MappedRange> mapped_;
  std::uint64_t notes_at_ = 0, ram_at_ = 0;
};

Result<void> write_at(int file, std::span<const std::byte> bytes, std::uint64_t at) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(file, bytes.data(), bytes.size(), static_cast<off_t>(at));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return fail_errno(n < 0 ? errno : EIO, "Write {}", format_size(bytes.size()));
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    at += static_cast<std::uint64_t>(n);
  }
  return {};
}

// From the copy, which has no holes that looking would fill.
void append_vmcoreinfo(const RamImage& ram, std::vector<std::byte>& notes) {
  bool found = false;
  ram.pages().for_each([&](std::uint64_t number) {
    if (found) return;
    // The text may go on in the next page.
    const bool more = ram.pages().has(number + 1);
    const std::span<const std::byte> bytes(ram.page(number).data(),
                                           static_cast<std::size_t>(more ? 2 * kPage : kPage));
    const auto text = vmcoreinfo_in(bytes);
    found = !text.empty();
    if (found) append_note(notes, "VMCOREINFO", 0, text);
  });
}

// All but the memory.
struct Facts {
  std::vector<std::byte> notes;
  Layout layout;
};

Result<Facts> facts_of(Machine& machine, const CpuAccess& cpus) {
  VMM_TRY(bring_to_rest(machine, cpus));
  const std::vector<CoreCpu> states = VMM_TRY(read_cpus(cpus));
  std::vector<std::byte> notes = cpu_notes(states);
  const CoreCpu& first = states.front();
  const Layout layout(
      machine.memory,
      kernel_ranges(machine.memory, x86::paging_context(first.system, first.registers.rflags)),
      notes.size());
  return Facts{std::move(notes), layout};
}

// copy(file, where memory begins in it) copies memory.
template <typename Copy>
Result<void> write_file(Facts facts, const std::string& path, Copy&& copy) {
  const Layout& layout = facts.layout;
  ReplacedFile file = VMM_TRY(ReplacedFile::create(path));
  if (::ftruncate(file.fd(), static_cast<off_t>(layout.file_size())) != 0) {
    return fail_errno(errno, "Size a file of {}", format_size(layout.file_size()));
  }
  UniqueFd duplicate = VMM_TRY(file.duplicate());
  const RamImage ram = VMM_TRY(copy(std::move(duplicate), layout.ram_at()));
  append_vmcoreinfo(ram, facts.notes);
  VMM_TRY(write_at(file.fd(), facts.notes, layout.notes_at()));
  VMM_TRY(write_at(file.fd(), layout.headers(facts.notes.size()), 0));
  return file.commit();
}

class FrozenCoreFile final : public FrozenCore {
 public:
  FrozenCoreFile(Facts facts, FrozenMemory memory, std::shared_ptr<const RamImage> base)
      : facts_(std::move(facts)), memory_(std::move(memory)), base_(std::move(base)) {}

  Result<void> write(const std::string& path, const std::function<bool()>& cancelled) override {
    const auto copy = [&](UniqueFd file, std::uint64_t at) {
      return RamImage::copy_of(memory_, base_.get(), std::move(file),
                               {.offset = at, .cancelled = cancelled});
    };
    return with_context(write_file(facts_, path, copy), "Write the guest to the core file " + path);
  }

 private:
  const Facts facts_;
  const FrozenMemory memory_;
  const std::shared_ptr<const RamImage> base_;
};

}  // namespace

Result<std::unique_ptr<FrozenCore>> freeze_core(Machine& machine, const CpuAccess& cpus,
                                                std::shared_ptr<const RamImage> base) {
  Facts facts = VMM_TRY(facts_of(machine, cpus));
  FrozenMemory memory = VMM_TRY(FrozenMemory::create(machine.memory));
  return std::make_unique<FrozenCoreFile>(std::move(facts), std::move(memory), std::move(base));
}

Result<void> write_core(Machine& machine, const CpuAccess& cpus, const std::string& path,
                        const CoreOptions& options) {
  Facts facts = VMM_TRY(facts_of(machine, cpus));
  return write_file(
      std::move(facts), path, [&](UniqueFd file, std::uint64_t at) -> Result<RamImage> {
        RamImage ram = VMM_TRY(RamImage::copy_of(machine.memory, options.base, std::move(file),
                                                 {.offset = at, .cancelled = options.cancelled}));
        if (options.memory_written) options.memory_written();
        return ram;
      });
}

}  // namespace vmm
