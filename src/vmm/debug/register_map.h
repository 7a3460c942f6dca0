// The registers that gdb is told of, by number: their description in XML, and their bytes in a
// CpuState. Pure.
//
// The standard features (GDB manual, "i386 Features") come first, so that gdb knows them; then
// org.vmm.system: segments with their hidden parts, control and debug registers, descriptor tables
// and MSRs by name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/completion/xsave_layout.h"
#include "vmm/debug/cpu_state.h"

namespace vmm::debug {

// What gdb takes the guest's code for. It asks once for each connection.
enum class Architecture : std::uint8_t {
  kX86_64,
  kI386,   // 32-bit code
  kI8086,  // 16-bit code; registers as with kI386
};

std::string_view to_string(Architecture architecture) noexcept;

// Immutable after construction.
class RegisterMap {
 public:
  // State components that `layout` does not have are not described.
  RegisterMap(Architecture architecture, const completion::XsaveLayout& layout);

  std::size_t count() const noexcept { return registers_.size(); }
  std::string_view name(std::size_t number) const { return registers_[number].name; }
  // Bytes of the register.
  std::size_t size(std::size_t number) const { return registers_[number].bits / 8; }
  // The number of a register; nothing when there is none of that name.
  std::optional<std::size_t> find(std::string_view name) const;

  // Program counter, stack pointer and frame pointer: what a debugger wants to know at each stop.
  std::span<const std::size_t> told_at_stops() const noexcept { return told_at_stops_; }
  // Whether all of the register is in CpuState::general and CpuState::system.
  bool is_basic(std::size_t number) const;
  // The register's bytes, lowest first; nothing when this CPU does not have it. The program counter
  // is linear: outside of 64-bit mode the code segment's base is added.
  std::optional<std::string> read(std::size_t number, const CpuState& state) const;
  // False when the register cannot be written, or `bytes` are not as many as it has.
  bool write(std::size_t number, std::string_view bytes, CpuState& state) const;

  // The description: target.xml.
  const std::string& xml() const noexcept { return xml_; }

 private:
  enum class Kind : std::uint8_t {
    kGeneral,
    kPc,
    kFlags,
    kSelector,
    kXsave,  // bytes of the XSAVE area
    kFpuTag,
    kSegmentBase,
    kSegmentLimit,
    kSegmentAttributes,
    kTable,    // base and limit of GDT and IDT
    kControl,  // CR0 ... EFER
    kDebug,
    kMsr,
  };
  struct Register {
    std::string name;
    std::string type;
    std::uint32_t bits = 64;
    Kind kind{};
    std::uint32_t index = 0;      // which of its kind
    std::uint32_t offset = 0;     // kXsave: where
    std::uint32_t component = 0;  // kXsave: of which state component
    std::uint32_t stored = 0;     // kXsave: bytes there; what is missing up to `bits` reads zero
  };
  struct Builder;

  std::uint64_t value(const Register& r, const CpuState& state) const;
  bool set_value(const Register& r, std::uint64_t value, CpuState& state) const;

  bool wide_;
  std::vector<Register> registers_;
  std::vector<std::size_t> told_at_stops_;
  std::string xml_;
};

}  // namespace vmm::debug
