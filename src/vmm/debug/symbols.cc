#include "vmm/debug/symbols.h"

#include <elf.h>
#include <fmt/format.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <utility>

#include "base/size.h"
#include "vmm/debug/packet.h"

namespace vmm::debug {
namespace {

// A kernel with debug information has a few hundred megabytes.
constexpr std::uint64_t kMostFile = GiB(4);

// A structure of the image at `offset`; false when the image ends before it does.
template <typename T>
bool read_at(std::string_view image, std::uint64_t offset, T& value) {
  if (offset > image.size() || image.size() - offset < sizeof value) return false;
  std::memcpy(&value, image.data() + offset, sizeof value);
  return true;
}

std::string_view slice(std::string_view image, std::uint64_t offset, std::uint64_t size) {
  if (offset > image.size() || size > image.size() - offset) return {};
  return image.substr(offset, size);
}

}  // namespace

void Symbols::add(std::string_view name, std::uint64_t address) {
  by_name_.emplace(name, address);
  by_address_.emplace(address, name);
}

Result<Symbols> Symbols::parse_map(std::string_view text) {
  Symbols symbols;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty()) continue;
    // "ffffffff81000000 T _text"
    const auto address = take_hex(line);
    if (!address || line.size() < 4 || line[0] != ' ' || line[2] != ' ') {
      return fail(ErrorCode::kBadConfig, "this is neither a System.map nor a 64-bit vmlinux");
    }
    const char type = line[1];
    if (type == 'A' || type == 'a') continue;  // no addresses
    symbols.add(line.substr(3, line.find_first_of(" \t\r", 3) - 3), *address);
  }
  return symbols;
}

Result<Symbols> Symbols::parse_elf(std::string_view image) {
  Elf64_Ehdr head{};
  if (!read_at(image, 0, head) || head.e_ident[EI_CLASS] != ELFCLASS64 ||
      head.e_ident[EI_DATA] != ELFDATA2LSB || head.e_shentsize != sizeof(Elf64_Shdr)) {
    return fail(ErrorCode::kBadConfig, "this is neither a System.map nor a 64-bit vmlinux");
  }
  Symbols symbols;
  for (std::uint64_t i = 0; i < head.e_shnum; ++i) {
    Elf64_Shdr section{}, strings{};
    if (!read_at(image, head.e_shoff + i * sizeof section, section)) break;
    if (section.sh_type != SHT_SYMTAB) continue;
    if (!read_at(image, head.e_shoff + std::uint64_t{section.sh_link} * sizeof strings, strings)) {
      break;
    }
    const std::string_view names = slice(image, strings.sh_offset, strings.sh_size);
    std::string_view entries = slice(image, section.sh_offset, section.sh_size);
    for (; entries.size() >= sizeof(Elf64_Sym); entries.remove_prefix(sizeof(Elf64_Sym))) {
      Elf64_Sym symbol{};
      (void)read_at(entries, 0, symbol);
      const auto type = ELF64_ST_TYPE(symbol.st_info);
      if (symbol.st_name >= names.size() || symbol.st_shndx == SHN_UNDEF ||
          symbol.st_shndx == SHN_ABS || type == STT_SECTION || type == STT_FILE) {
        continue;
      }
      const std::string_view rest = names.substr(symbol.st_name);
      const std::string_view name = rest.substr(0, rest.find('\0'));
      if (!name.empty()) symbols.add(name, symbol.st_value);
    }
  }
  if (symbols.count() == 0) return fail(ErrorCode::kBadConfig, "it has no symbols");
  return symbols;
}

Result<Symbols> Symbols::load(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return fail_errno(errno, "Open the symbols {}", path);
  const auto size = static_cast<std::uint64_t>(file.tellg());
  if (size == 0 || size > kMostFile) {
    return fail(ErrorCode::kBadConfig, "The symbols {}: the file has {}", path, format_size(size));
  }
  std::string image(size, '\0');
  file.seekg(0);
  if (!file.read(image.data(), static_cast<std::streamsize>(size))) {
    return fail(ErrorCode::kIo, "The symbols {} cannot be read", path);
  }
  const bool elf = image.compare(0, SELFMAG, ELFMAG) == 0;
  Symbols symbols = VMM_TRY(with_context(elf ? parse_elf(image) : parse_map(image),
                                         fmt::format("Read the symbols {}", path)));
  symbols.path_ = path;
  return symbols;
}

std::optional<std::uint64_t> Symbols::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  if (found == by_name_.end()) return std::nullopt;
  return found->second;
}

std::optional<Symbols::Place> Symbols::at(std::uint64_t address) const {
  auto found = by_address_.upper_bound(address);
  if (found == by_address_.begin()) return std::nullopt;
  --found;
  // Behind the last name anything could be.
  constexpr std::uint64_t kFar = MiB(1);
  if (address - found->first > kFar) return std::nullopt;
  return Place{found->second, found->first};
}

std::string Symbols::name_of(std::uint64_t address) const {
  const auto place = at(address);
  if (!place) return {};
  const std::uint64_t offset = address - place->address;
  return offset == 0 ? std::string(place->name) : fmt::format("{}+{:#x}", place->name, offset);
}

std::pair<std::uint64_t, std::uint64_t> Symbols::range() const {
  const auto text = find("_text"), end = find("_end");
  if (text && end && *text < *end) return {*text, *end};
  if (by_address_.empty()) return {};
  return {by_address_.begin()->first, by_address_.rbegin()->first};
}

std::optional<std::uint64_t> Symbols::kernel_offset(const CpuState& state,
                                                    std::optional<std::uint64_t> loaded) const {
  for (std::size_t i = 0; i < kNamedMsrs.size(); ++i) {
    if (kNamedMsrs[i].index != x86::kMsrLstar || !state.msrs[i]) continue;
    if (const auto told = kernel_offset(*state.msrs[i])) return told;
  }
  return loaded;
}

std::optional<Symbols::Segments> Symbols::segments() const {
  const auto text = find("_text"), data = find("_sdata");
  if (!text || !data) return std::nullopt;
  return Segments{*text, *data};
}

std::optional<std::uint64_t> Symbols::kernel_offset(std::uint64_t lstar) const {
  const auto entry = find("entry_SYSCALL_64");
  if (!entry || lstar < *entry) return std::nullopt;
  const std::uint64_t offset = lstar - *entry;
  // KASLR moves a kernel by whole 2 MiB within 1 GiB.
  if (offset % MiB(2) != 0 || offset > GiB(1)) return std::nullopt;
  return offset;
}

}  // namespace vmm::debug
