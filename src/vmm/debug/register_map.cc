#include "vmm/debug/register_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <span>

namespace vmm::debug {
namespace {

using completion::XsaveLayout;

struct Bit {
  unsigned number;
  std::string_view name;
};
constexpr Bit kFlagBits[] = {{0, "CF"},   {1, ""},    {2, "PF"},  {4, "AF"},  {6, "ZF"},
                             {7, "SF"},   {8, "TF"},  {9, "IF"},  {10, "DF"}, {11, "OF"},
                             {14, "NT"},  {16, "RF"}, {17, "VM"}, {18, "AC"}, {19, "VIF"},
                             {20, "VIP"}, {21, "ID"}};
constexpr Bit kMxcsrBits[] = {{0, "IE"},  {1, "DE"},  {2, "ZE"},  {3, "OE"}, {4, "UE"},
                              {5, "PE"},  {6, "DAZ"}, {7, "IM"},  {8, "DM"}, {9, "ZM"},
                              {10, "OM"}, {11, "UM"}, {12, "PM"}, {15, "FZ"}};
constexpr Bit kCr0Bits[] = {{0, "PE"},  {1, "MP"},  {2, "EM"},  {3, "TS"},  {4, "ET"}, {5, "NE"},
                            {16, "WP"}, {18, "AM"}, {29, "NW"}, {30, "CD"}, {31, "PG"}};
constexpr Bit kCr4Bits[] = {
    {0, "VME"},   {1, "PVI"},   {2, "TSD"},   {3, "DE"},        {4, "PSE"},         {5, "PAE"},
    {6, "MCE"},   {7, "PGE"},   {8, "PCE"},   {9, "OSFXSR"},    {10, "OSXMMEXCPT"}, {11, "UMIP"},
    {12, "LA57"}, {13, "VMXE"}, {14, "SMXE"}, {16, "FSGSBASE"}, {17, "PCIDE"},      {18, "OSXSAVE"},
    {20, "SMEP"}, {21, "SMAP"}, {22, "PKE"},  {23, "CET"}};
constexpr Bit kEferBits[] = {{0, "SCE"}, {8, "LME"}, {10, "LMA"}, {11, "NXE"}};

std::string flags_type(std::string_view id, unsigned bytes, std::span<const Bit> bits) {
  std::string text = fmt::format("<flags id=\"{}\" size=\"{}\">", id, bytes);
  for (const Bit& bit : bits) {
    text += fmt::format("<field name=\"{}\" start=\"{}\" end=\"{}\"/>", bit.name, bit.number,
                        bit.number);
  }
  return text + "</flags>";
}

constexpr std::string_view kVectorTypes =
    "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>"
    "<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
    "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>"
    "<vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
    "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>"
    "<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
    "<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/>"
    "<field name=\"v2_double\" type=\"v2d\"/><field name=\"v16_int8\" type=\"v16i8\"/>"
    "<field name=\"v8_int16\" type=\"v8i16\"/><field name=\"v4_int32\" type=\"v4i32\"/>"
    "<field name=\"v2_int64\" type=\"v2i64\"/><field name=\"uint128\" type=\"uint128\"/></union>";

struct SegmentName {
  std::string_view name;
  x86::Segment x86::SystemRegisters::*field;
};
constexpr std::array<SegmentName, 8> kSegments{{{"cs", &x86::SystemRegisters::cs},
                                                {"ss", &x86::SystemRegisters::ss},
                                                {"ds", &x86::SystemRegisters::ds},
                                                {"es", &x86::SystemRegisters::es},
                                                {"fs", &x86::SystemRegisters::fs},
                                                {"gs", &x86::SystemRegisters::gs},
                                                {"tr", &x86::SystemRegisters::tr},
                                                {"ldtr", &x86::SystemRegisters::ldt}}};
constexpr std::size_t kSelectors = 6;  // those that gdb's core feature has
constexpr std::uint32_t kFs = 4, kGs = 5;

struct ControlName {
  std::string_view name;
  std::string_view type;
  std::uint64_t x86::SystemRegisters::*field;
};
constexpr std::array<ControlName, 7> kControls{
    {{"cr0", "cr0", &x86::SystemRegisters::cr0},
     {"cr2", "uint64", &x86::SystemRegisters::cr2},
     {"cr3", "uint64", &x86::SystemRegisters::cr3},
     {"cr4", "cr4", &x86::SystemRegisters::cr4},
     {"cr8", "uint64", &x86::SystemRegisters::cr8},
     {"efer", "efer", &x86::SystemRegisters::efer},
     {"apic_base", "uint64", &x86::SystemRegisters::apic_base}}};

constexpr std::array<std::string_view, 4> kTables{"gdt_base", "gdt_limit", "idt_base", "idt_limit"};

// The hidden part of a segment as descriptors have it in bits 40 to 55 (SDM volume 3, figure 3-8).
std::uint32_t attributes_of(const x86::Segment& s) noexcept {
  return static_cast<std::uint32_t>(s.type & 0xf) | (s.code_or_data ? 1U << 4 : 0) |
         static_cast<std::uint32_t>(s.dpl & 3) << 5 | (s.present ? 1U << 7 : 0) |
         (s.available ? 1U << 12 : 0) | (s.long_mode ? 1U << 13 : 0) |
         (s.default_big ? 1U << 14 : 0) | (s.granularity ? 1U << 15 : 0) |
         (s.unusable ? 1U << 16 : 0);
}

void set_attributes(x86::Segment& s, std::uint32_t value) noexcept {
  s.type = value & 0xf;
  s.code_or_data = (value & 1U << 4) != 0;
  s.dpl = static_cast<std::uint8_t>((value >> 5) & 3);
  s.present = (value & 1U << 7) != 0;
  s.available = (value & 1U << 12) != 0;
  s.long_mode = (value & 1U << 13) != 0;
  s.default_big = (value & 1U << 14) != 0;
  s.granularity = (value & 1U << 15) != 0;
  s.unusable = (value & 1U << 16) != 0;
}

// FXSAVE keeps one bit a register, FSTENV and gdb two (SDM volume 1, 8.1.7 and 10.5.1.1).
constexpr std::size_t kAbridgedTag = 4, kFirstSt = 32;

std::uint16_t full_tag(const x86::XsaveArea& area) noexcept {
  const auto abridged = completion::xsave_field<std::uint8_t>(area, kAbridgedTag);
  const auto top =
      static_cast<unsigned>((completion::xsave_field<std::uint16_t>(area, 2) >> 11) & 7);
  std::uint16_t tag = 0;
  for (unsigned physical = 0; physical < 8; ++physical) {
    unsigned two = 3;  // empty
    if ((abridged >> physical & 1) != 0) {
      const std::size_t at = kFirstSt + std::size_t{16} * ((physical + 8 - top) & 7);
      const auto mantissa = completion::xsave_field<std::uint64_t>(area, at);
      const auto exponent = completion::xsave_field<std::uint16_t>(area, at + 8) & 0x7fff;
      if (exponent == 0x7fff || (exponent != 0 && mantissa >> 63 == 0)) {
        two = 2;  // special
      } else if (exponent == 0) {
        two = mantissa == 0 ? 1 : 2;
      } else {
        two = 0;
      }
    }
    tag = static_cast<std::uint16_t>(tag | two << (2 * physical));
  }
  return tag;
}

std::uint8_t abridged_tag(std::uint64_t full) noexcept {
  std::uint8_t tag = 0;
  for (unsigned i = 0; i < 8; ++i) {
    if ((full >> (2 * i) & 3) != 3) tag = static_cast<std::uint8_t>(tag | 1U << i);
  }
  return tag;
}

std::string bytes_of(std::uint64_t value, std::size_t size) {
  std::string bytes(size, '\0');
  for (std::size_t i = 0; i < std::min<std::size_t>(size, 8); ++i) {
    bytes[i] = static_cast<char>(value >> (8 * i));
  }
  return bytes;
}

std::uint64_t number_of(std::string_view bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < std::min<std::size_t>(bytes.size(), 8); ++i) {
    value |= std::uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
  }
  return value;
}

}  // namespace

std::string_view to_string(Architecture architecture) noexcept {
  switch (architecture) {
    case Architecture::kX86_64:
      return "i386:x86-64";
    case Architecture::kI386:
      return "i386";
    case Architecture::kI8086:
      return "i8086";
  }
  return "i386:x86-64";
}

// Fills a map, feature by feature, in the order of gdb's register numbers.
struct RegisterMap::Builder {
  RegisterMap& map;
  const XsaveLayout& layout;
  std::size_t vectors;  // XMM0 to ...

  void open(std::string_view feature) { map.xml_ += fmt::format("<feature name=\"{}\">", feature); }
  void close() { map.xml_ += "</feature>"; }

  void add(Register r, std::string_view group = "general") {
    map.xml_ +=
        fmt::format("<reg name=\"{}\" bitsize=\"{}\" type=\"{}\" regnum=\"{}\" group=\"{}\"/>",
                    r.name, r.bits, r.type, map.registers_.size(), group);
    map.registers_.push_back(std::move(r));
  }
  // A register that lies in the XSAVE area.
  void add_xsave(std::string name, std::string type, std::uint32_t bits, std::uint32_t component,
                 std::uint32_t offset, std::string_view group, std::uint32_t stored = 0) {
    add({std::move(name), std::move(type), bits, Kind::kXsave, 0, offset, component,
         stored == 0 ? bits / 8 : stored},
        group);
  }
  std::uint32_t component(unsigned index) const { return layout.components[index].offset; }
  bool has(unsigned index) const { return layout.components[index].size != 0; }

  void core() {
    static constexpr std::array<std::pair<std::string_view, x86::Gpr>, 16> kWide{
        {{"rax", x86::kRax},
         {"rbx", x86::kRbx},
         {"rcx", x86::kRcx},
         {"rdx", x86::kRdx},
         {"rsi", x86::kRsi},
         {"rdi", x86::kRdi},
         {"rbp", x86::kRbp},
         {"rsp", x86::kRsp},
         {"r8", x86::kR8},
         {"r9", x86::kR9},
         {"r10", x86::kR10},
         {"r11", x86::kR11},
         {"r12", x86::kR12},
         {"r13", x86::kR13},
         {"r14", x86::kR14},
         {"r15", x86::kR15}}};
    static constexpr std::array<std::pair<std::string_view, x86::Gpr>, 8> kNarrow{
        {{"eax", x86::kRax},
         {"ecx", x86::kRcx},
         {"edx", x86::kRdx},
         {"ebx", x86::kRbx},
         {"esp", x86::kRsp},
         {"ebp", x86::kRbp},
         {"esi", x86::kRsi},
         {"edi", x86::kRdi}}};
    open("org.gnu.gdb.i386.core");
    map.xml_ += flags_type("eflags", 4, kFlagBits);
    const std::uint32_t bits = map.wide_ ? 64 : 32;
    const auto general = [&](const auto& names) {
      for (const auto& [name, gpr] : names) {
        const bool pointer = gpr == x86::kRsp || gpr == x86::kRbp;
        add({std::string(name), pointer ? "data_ptr" : fmt::format("int{}", bits), bits,
             Kind::kGeneral, gpr});
      }
    };
    if (map.wide_) {
      general(kWide);
    } else {
      general(kNarrow);
    }
    add({map.wide_ ? "rip" : "eip", "code_ptr", bits, Kind::kPc});
    add({"eflags", "eflags", 32, Kind::kFlags});
    for (std::uint32_t i = 0; i < kSelectors; ++i) {
      add({std::string(kSegments[i].name), "int32", 32, Kind::kSelector, i});
    }
    for (std::uint32_t i = 0; i < 8; ++i) {
      add_xsave(fmt::format("st{}", i), "i387_ext", 80, 0, kFirstSt + 16 * i, "float");
    }
    // FXSAVE's fields in the 64-bit format (SDM volume 1, table 10-2).
    add_xsave("fctrl", "int", 32, 0, 0, "float", 2);
    add_xsave("fstat", "int", 32, 0, 2, "float", 2);
    add({"ftag", "int", 32, Kind::kFpuTag}, "float");
    add_xsave("fiseg", "int", 32, 0, 12, "float", 2);
    add_xsave("fioff", "int", 32, 0, 8, "float");
    add_xsave("foseg", "int", 32, 0, 20, "float", 2);
    add_xsave("fooff", "int", 32, 0, 16, "float");
    add_xsave("fop", "int", 32, 0, 6, "float", 2);
    close();
  }

  void sse() {
    open("org.gnu.gdb.i386.sse");
    map.xml_ += kVectorTypes;
    map.xml_ += flags_type("mxcsr", 4, kMxcsrBits);
    for (std::uint32_t i = 0; i < vectors; ++i) {
      add_xsave(fmt::format("xmm{}", i), "vec128", 128, 1,
                static_cast<std::uint32_t>(completion::kXsaveXmm) + 16 * i, "vector");
    }
    add_xsave("mxcsr", "mxcsr", 32, 1, static_cast<std::uint32_t>(completion::kXsaveMxcsr),
              "vector");
    close();
  }

  void bases() {
    if (!map.wide_) return;
    open("org.gnu.gdb.i386.segments");
    add({"fs_base", "int", 64, Kind::kSegmentBase, kFs});
    add({"gs_base", "int", 64, Kind::kSegmentBase, kGs});
    close();
  }

  void avx() {
    if (!has(2)) return;
    open("org.gnu.gdb.i386.avx");
    for (std::uint32_t i = 0; i < vectors; ++i) {
      add_xsave(fmt::format("ymm{}h", i), "uint128", 128, 2, component(2) + 16 * i, "vector");
    }
    close();
  }

  // SDM volume 1, 13.5.6: opmasks, upper halves of ZMM0 to 15, ZMM16 to 31.
  void avx512() {
    if (!has(5) || !has(6) || !has(7)) return;
    open("org.gnu.gdb.i386.avx512");
    map.xml_ += "<vector id=\"v2ui128\" type=\"uint128\" count=\"2\"/>";
    map.xml_ += kVectorTypes;
    if (map.wide_) {
      for (std::uint32_t i = 0; i < 16; ++i) {
        add_xsave(fmt::format("xmm{}", 16 + i), "vec128", 128, 7, component(7) + 64 * i, "vector");
      }
      for (std::uint32_t i = 0; i < 16; ++i) {
        add_xsave(fmt::format("ymm{}h", 16 + i), "uint128", 128, 7, component(7) + 64 * i + 16,
                  "vector");
      }
    }
    for (std::uint32_t i = 0; i < 8; ++i) {
      add_xsave(fmt::format("k{}", i), "uint64", 64, 5, component(5) + 8 * i, "vector");
    }
    for (std::uint32_t i = 0; i < vectors; ++i) {
      add_xsave(fmt::format("zmm{}h", i), "v2ui128", 256, 6, component(6) + 32 * i, "vector");
    }
    if (map.wide_) {
      for (std::uint32_t i = 0; i < 16; ++i) {
        add_xsave(fmt::format("zmm{}h", 16 + i), "v2ui128", 256, 7, component(7) + 64 * i + 32,
                  "vector");
      }
    }
    close();
  }

  void pkeys() {
    if (!has(completion::kComponentPkru)) return;
    open("org.gnu.gdb.i386.pkeys");
    add_xsave("pkru", "uint32", 32, completion::kComponentPkru,
              component(completion::kComponentPkru), "general");
    close();
  }

  void system() {
    open("org.vmm.system");
    map.xml_ += flags_type("cr0", 8, kCr0Bits) + flags_type("cr4", 8, kCr4Bits) +
                flags_type("efer", 8, kEferBits);
    for (std::uint32_t i = 0; i < kControls.size(); ++i) {
      add({std::string(kControls[i].name), std::string(kControls[i].type), 64, Kind::kControl, i},
          "system");
    }
    for (std::uint32_t i = 0; i < kTables.size(); ++i) {
      const bool limit = i % 2 == 1;
      add({std::string(kTables[i]), limit ? "uint32" : "uint64", limit ? 32U : 64U, Kind::kTable,
           i},
          "system");
    }
    for (std::uint32_t i = 0; i < kSegments.size(); ++i) {
      const std::string_view name = kSegments[i].name;
      if (i >= kSelectors) {
        add({std::string(name), "uint32", 32, Kind::kSelector, i}, "system");
      }
      // gdb's own feature has the bases of FS and GS, in 64-bit descriptions only.
      if (!map.wide_ || (i != kFs && i != kGs)) {
        add({fmt::format("{}_base", name), "uint64", 64, Kind::kSegmentBase, i}, "system");
      }
      add({fmt::format("{}_limit", name), "uint32", 32, Kind::kSegmentLimit, i}, "system");
      add({fmt::format("{}_attr", name), "uint32", 32, Kind::kSegmentAttributes, i}, "system");
    }
    static constexpr std::array<std::string_view, 6> kDebugNames{"dr0", "dr1", "dr2",
                                                                 "dr3", "dr6", "dr7"};
    for (std::uint32_t i = 0; i < kDebugNames.size(); ++i) {
      add({std::string(kDebugNames[i]), "uint64", 64, Kind::kDebug, i}, "system");
    }
    for (std::uint32_t i = 0; i < kNamedMsrs.size(); ++i) {
      add({std::string(kNamedMsrs[i].name), "uint64", 64, Kind::kMsr, i}, "system");
    }
    close();
  }
};

RegisterMap::RegisterMap(Architecture architecture, const XsaveLayout& layout)
    : wide_(architecture == Architecture::kX86_64) {
  xml_ = fmt::format(
      "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target "
      "version=\"1.0\"><architecture>{}</architecture>",
      to_string(architecture));
  Builder builder{*this, layout, wide_ ? std::size_t{16} : std::size_t{8}};
  builder.core();
  builder.sse();
  builder.bases();
  builder.avx();
  builder.avx512();
  builder.pkeys();
  builder.system();
  xml_ += "</target>";
  for (const std::string_view name : {"rip", "rsp", "rbp", "eip", "esp", "ebp"}) {
    if (const auto number = find(name)) told_at_stops_.push_back(*number);
  }
}

std::optional<std::size_t> RegisterMap::find(std::string_view name) const {
  const auto found = std::find_if(registers_.begin(), registers_.end(),
                                  [name](const Register& r) { return r.name == name; });
  if (found == registers_.end()) return std::nullopt;
  return static_cast<std::size_t>(found - registers_.begin());
}

std::uint64_t RegisterMap::value(const Register& r, const CpuState& state) const {
  switch (r.kind) {
    case Kind::kGeneral:
      return state.general.gpr[r.index];
    case Kind::kPc:
      return state.linear_pc();
    case Kind::kFlags:
      return state.general.rflags;
    case Kind::kSelector:
      return (state.system.*kSegments[r.index].field).selector;
    case Kind::kFpuTag:
      return full_tag(state.xsave);
    case Kind::kSegmentBase:
      return (state.system.*kSegments[r.index].field).base;
    case Kind::kSegmentLimit:
      return (state.system.*kSegments[r.index].field).limit;
    case Kind::kSegmentAttributes:
      return attributes_of(state.system.*kSegments[r.index].field);
    case Kind::kTable: {
      const x86::DescriptorTable& table = r.index < 2 ? state.system.gdt : state.system.idt;
      return r.index % 2 == 0 ? table.base : table.limit;
    }
    case Kind::kControl:
      return state.system.*kControls[r.index].field;
    case Kind::kDebug:
      return r.index < 4    ? state.debug.address[r.index]
             : r.index == 4 ? state.debug.dr6
                            : state.debug.dr7;
    case Kind::kMsr:
      return state.msrs[r.index].value_or(0);
    case Kind::kXsave:
      break;
  }
  return 0;
}

bool RegisterMap::set_value(const Register& r, std::uint64_t value, CpuState& state) const {
  switch (r.kind) {
    case Kind::kGeneral:
      state.general.gpr[r.index] = value;
      return true;
    case Kind::kPc:
      state.set_linear_pc(value);
      return true;
    case Kind::kFlags:
      state.general.rflags = value | 2;
      return true;
    case Kind::kSelector:
      (state.system.*kSegments[r.index].field).selector = static_cast<std::uint16_t>(value);
      return true;
    case Kind::kFpuTag:
      completion::set_xsave_field(state.xsave, kAbridgedTag, abridged_tag(value));
      return true;
    case Kind::kSegmentBase:
      (state.system.*kSegments[r.index].field).base = value;
      return true;
    case Kind::kSegmentLimit:
      (state.system.*kSegments[r.index].field).limit = static_cast<std::uint32_t>(value);
      return true;
    case Kind::kSegmentAttributes:
      set_attributes(state.system.*kSegments[r.index].field, static_cast<std::uint32_t>(value));
      return true;
    case Kind::kTable: {
      x86::DescriptorTable& table = r.index < 2 ? state.system.gdt : state.system.idt;
      if (r.index % 2 == 0) {
        table.base = value;
      } else {
        if (value > 0xffff) return false;
        table.limit = static_cast<std::uint16_t>(value);
      }
      return true;
    }
    case Kind::kControl:
      state.system.*kControls[r.index].field = value;
      return true;
    case Kind::kDebug:
      (r.index < 4    ? state.debug.address[r.index]
       : r.index == 4 ? state.debug.dr6
                      : state.debug.dr7) = value;
      return true;
    case Kind::kMsr:
      if (!state.msrs[r.index]) return false;
      state.msrs[r.index] = value;
      return true;
    case Kind::kXsave:
      break;
  }
  return false;
}

bool RegisterMap::is_basic(std::size_t number) const {
  switch (registers_[number].kind) {
    case Kind::kXsave:
    case Kind::kFpuTag:
    case Kind::kDebug:
    case Kind::kMsr:
      return false;
    case Kind::kGeneral:
    case Kind::kPc:
    case Kind::kFlags:
    case Kind::kSelector:
    case Kind::kSegmentBase:
    case Kind::kSegmentLimit:
    case Kind::kSegmentAttributes:
    case Kind::kTable:
    case Kind::kControl:
      break;
  }
  return true;
}

std::optional<std::string> RegisterMap::read(std::size_t number, const CpuState& state) const {
  const Register& r = registers_[number];
  const std::size_t size = r.bits / 8;
  if (r.kind == Kind::kMsr && !state.msrs[r.index]) return std::nullopt;
  if (r.kind != Kind::kXsave) return bytes_of(value(r, state), size);
  if (std::size_t{r.offset} + r.stored > state.xsave.size()) return std::nullopt;
  std::string bytes(size, '\0');
  std::memcpy(bytes.data(), &state.xsave[r.offset], r.stored);
  return bytes;
}

bool RegisterMap::write(std::size_t number, std::string_view bytes, CpuState& state) const {
  const Register& r = registers_[number];
  if (bytes.size() != r.bits / 8) return false;
  if (r.kind != Kind::kXsave) {
    const std::uint64_t given = number_of(bytes);
    // What a 32-bit description shows of a register is its lower half: the upper stays.
    const std::uint64_t kept = r.bits < 64 && (r.kind == Kind::kGeneral || r.kind == Kind::kFlags)
                                   ? value(r, state) & ~((std::uint64_t{1} << r.bits) - 1)
                                   : 0;
    return set_value(r, kept | given, state);
  }
  if (std::size_t{r.offset} + r.stored > state.xsave.size()) return false;
  std::memcpy(&state.xsave[r.offset], bytes.data(), r.stored);
  const auto present =
      completion::xsave_field<std::uint64_t>(state.xsave, completion::kXsaveXstateBv);
  completion::set_xsave_field(state.xsave, completion::kXsaveXstateBv,
                              present | std::uint64_t{1} << r.component);
  return true;
}

}  // namespace vmm::debug
