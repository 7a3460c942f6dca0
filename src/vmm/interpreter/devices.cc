// Instructions that reach devices: ports, and MSRs that this process answers for.
#include "base/le.h"
#include "vmm/completion/zydis_library.h"
#include "vmm/interpreter/access.h"
#include "vmm/interpreter/choose.h"

namespace vmm::interpreter {
namespace {

constexpr std::uint8_t kRax = x86::kRax * 8, kRcx = x86::kRcx * 8, kRdx = x86::kRdx * 8;

// IN and OUT: the port is an immediate in Insn::imm or in DX.
template <bool immediate>
std::uint16_t port(const Cpu& cpu, const Insn& i) noexcept {
  return immediate ? static_cast<std::uint16_t>(i.imm) : get<std::uint16_t>(cpu, kRdx);
}
template <class T, bool immediate>
Next in(Cpu& cpu, const Insn& i) noexcept {
  T value{};
  if (!cpu.take_answer(value)) {
    return cpu.leave(DeviceAccess{
        .to = DeviceAccess::To::kPort, .size = sizeof(T), .address = port<immediate>(cpu, i)});
  }
  put(cpu, kRax, value);
  return Next::kOn;
}
template <class T, bool immediate>
Next out(Cpu& cpu, const Insn& i) noexcept {
  DeviceAccess access{.to = DeviceAccess::To::kPort,
                      .is_write = true,
                      .size = sizeof(T),
                      .address = port<immediate>(cpu, i)};
  store_le(std::span(access.data).first(sizeof(T)), get<T>(cpu, kRax));
  return cpu.leave(access);
}

template <template <class, bool> class Fn>
Handler by_size(unsigned bits, bool immediate) {
  return for_size(bits / 8, [&]<class T>(T) -> Handler {
    if constexpr (sizeof(T) == 8) {
      return nullptr;
    } else {
      return immediate ? Fn<T, true>::run : Fn<T, false>::run;
    }
  });
}
template <class T, bool immediate>
struct In {
  static constexpr Handler run = in<T, immediate>;
};
template <class T, bool immediate>
struct Out {
  static constexpr Handler run = out<T, immediate>;
};

// IN AL/AX/EAX, port and OUT port, AL/AX/EAX.
Handler port_access(const completion::Instruction& instruction, bool is_write, Insn& insn) {
  const auto operands = instruction.visible();
  if (operands.size() != 2) return nullptr;
  const auto& which = operands[is_write ? 0 : 1];
  const auto& data = operands[is_write ? 1 : 0];
  const bool immediate = which.type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
  if (immediate) insn.imm = which.imm.value.u & 0xff;
  return is_write ? by_size<Out>(data.size, immediate) : by_size<In>(data.size, immediate);
}

// Whether a write is refused is known when it has been answered.
Next write_msr(Cpu& cpu, const Insn&) noexcept {
  const auto index = get<std::uint32_t>(cpu, kRcx);
  std::uint64_t ignored = 0;
  if (cpu.take_answer(ignored)) return Next::kOn;
  if (!cpu.host.is_device_msr(index)) {
    (void)cpu.leave_harmless();
    cpu.writes_msr = true;
    return Next::kStop;
  }
  DeviceAccess access{.to = DeviceAccess::To::kMsr, .is_write = true, .size = 8, .address = index};
  store_le(std::span(access.data),
           std::uint64_t{get<std::uint32_t>(cpu, kRdx)} << 32 | get<std::uint32_t>(cpu, kRax));
  return cpu.leave(access);
}
Next read_msr(Cpu& cpu, const Insn&) noexcept {
  const auto index = get<std::uint32_t>(cpu, kRcx);
  std::uint64_t value = 0;
  if (!cpu.take_answer(value)) {
    if (!cpu.host.is_device_msr(index)) return cpu.leave_harmless();
    return cpu.leave(DeviceAccess{.to = DeviceAccess::To::kMsr, .size = 8, .address = index});
  }
  put(cpu, kRax, static_cast<std::uint32_t>(value));
  put(cpu, kRdx, static_cast<std::uint32_t>(value >> 32));
  return Next::kOn;
}

}  // namespace

VcpuExit as_exit(DeviceAccess& access) noexcept {
  const std::span<std::byte> data = std::span(access.data).first(access.size);
  switch (access.to) {
    case DeviceAccess::To::kPort:
      return PioExit{.port = static_cast<std::uint16_t>(access.address),
                     .width = access.size,
                     .count = 1,
                     .is_write = access.is_write,
                     .data = data};
    case DeviceAccess::To::kMemory:
      return MmioExit{.address = Gpa(access.address), .is_write = access.is_write, .data = data};
    case DeviceAccess::To::kMsr:
      break;
  }
  return MsrExit{.index = static_cast<std::uint32_t>(access.address),
                 .is_write = access.is_write,
                 .filtered = true,
                 .value = access.is_write ? load_le(data) : 0};
}

Handler choose_device(const completion::Instruction& instruction, const Form&, Insn& insn) {
  switch (static_cast<int>(instruction.mnemonic())) {
    case ZYDIS_MNEMONIC_IN:
      return port_access(instruction, false, insn);
    case ZYDIS_MNEMONIC_OUT:
      return port_access(instruction, true, insn);
    case ZYDIS_MNEMONIC_RDMSR:
      return read_msr;
    case ZYDIS_MNEMONIC_WRMSR:
      return write_msr;
    default:
      return nullptr;
  }
}

}  // namespace vmm::interpreter
