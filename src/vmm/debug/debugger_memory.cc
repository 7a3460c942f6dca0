// The guest's memory, as the debugger sees and changes it.
#include <algorithm>

#include "memory/page_walk.h"
#include "vmm/debug/debugger_on_cpu.h"
#include "vmm/x86/paging_context.h"

namespace vmm::debug {

PagingContext all_seeing(const x86::SystemRegisters& system, std::uint64_t rflags) {
  PagingContext context = x86::privileged_context(system, rflags);
  context.pkru = 0;
  return context;
}

// Up to `size` bytes from `address` on that lie in one page: where, or nothing that is mapped.
std::optional<Gpa> Debugger::translate(const GuestMemory& memory,
                                       const std::optional<PagingContext>& context,
                                       std::uint64_t address, std::size_t& size) {
  constexpr std::uint64_t kPage = 4096;
  size = std::min<std::uint64_t>(size, kPage - address % kPage);
  if (!context) return Gpa(address);
  const PageWalk walk = walk_pages(memory, *context, Gva(address), AccessKind::kRead);
  if (!walk.mapped()) return std::nullopt;
  return walk.gpa;
}

// How addresses are to be understood; nothing: as physical ones.
Result<std::optional<PagingContext>> Debugger::context(unsigned cpu, Space space) const {
  if (space == Space::kPhysical) return std::optional<PagingContext>();
  if (const auto known = contexts_.find(cpu); known != contexts_.end()) {
    return std::optional(known->second);
  }
  const auto asked = on_cpu(cpu, [](kvm::VcpuFd& fd) -> Result<PagingContext> {
    const x86::Registers general = VMM_TRY(fd.registers());
    const x86::SystemRegisters system = VMM_TRY(fd.system_registers());
    return all_seeing(system, general.rflags);
  });
  return std::optional(contexts_.emplace(cpu, VMM_TRY(asked)).first->second);
}

Result<std::size_t> Debugger::read_memory(unsigned cpu, Space space, std::uint64_t address,
                                          std::span<std::byte> bytes) {
  const auto lock = lock_machine();
  return read_locked(cpu, space, address, bytes);
}

Result<std::size_t> Debugger::read_locked(unsigned cpu, Space space, std::uint64_t address,
                                          std::span<std::byte> bytes) const {
  const GuestMemory& memory = VMM_TRY(machine())->machine().memory;
  const auto context = VMM_TRY(this->context(cpu, space));
  const std::size_t done = read_pages(memory, context, address, bytes);
  if (done == 0 && !bytes.empty()) {
    return fail(ErrorCode::kOutOfRange, "There is no RAM at {:#x}", address);
  }
  return done;
}

std::size_t Debugger::read_pages(const GuestMemory& memory,
                                 const std::optional<PagingContext>& context, std::uint64_t address,
                                 std::span<std::byte> bytes) const {
  std::size_t done = 0;
  while (done < bytes.size()) {
    std::size_t size = bytes.size() - done;
    const auto gpa = translate(memory, context, address + done, size);
    const auto piece = bytes.subspan(done, size);
    if (!gpa || !memory.read(*gpa, piece)) break;
    planted_.hide(*gpa, piece);
    done += piece.size();
  }
  return done;
}

Result<void> Debugger::write_memory(unsigned cpu, Space space, std::uint64_t address,
                                    std::span<const std::byte> bytes) {
  const auto lock = lock_machine();
  VMM_TRY(in_present());
  history_.changed = true;
  const GuestMemory& memory = VMM_TRY(machine())->machine().memory;
  const auto context = VMM_TRY(this->context(cpu, space));
  std::size_t done = 0;
  while (done < bytes.size()) {
    std::size_t size = bytes.size() - done;
    const auto gpa = translate(memory, context, address + done, size);
    const auto piece = bytes.subspan(done, size);
    if (!gpa) return fail(ErrorCode::kOutOfRange, "Nothing is mapped at {:#x}", address + done);
    VMM_TRY(planted_.write(memory, *gpa, piece));
    done += piece.size();
  }
  return {};
}

std::vector<std::pair<std::uint64_t, std::uint64_t>> Debugger::ram() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
  if (control_ == nullptr) return ranges;
  for (const GuestRegion& region : control_->machine().memory.regions()) {
    ranges.emplace_back(region.range().base().value, region.range().size());
  }
  return ranges;
}

}  // namespace vmm::debug
