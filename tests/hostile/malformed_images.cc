#include "hostile/malformed_images.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>

#include "base/le.h"
#include "support/initrds.h"

namespace vmm::test {
namespace {

using loader::Compression;

constexpr std::uint64_t kLinked = 0x1000000;

struct Field {
  const char* name;
  std::size_t offset;
  std::size_t size;
};

// Linux, Documentation/x86/boot.rst.
constexpr Field kSetupHeader[] = {
    {"setup_sects", 0x1f1, 1},     {"syssize", 0x1f4, 4},
    {"boot_flag", 0x1fe, 2},       {"jump", 0x200, 2},
    {"header", 0x202, 4},          {"version", 0x206, 2},
    {"kernel_version", 0x20e, 2},  {"loadflags", 0x211, 1},
    {"code32_start", 0x214, 4},    {"ramdisk_image", 0x218, 4},
    {"heap_end_ptr", 0x224, 2},    {"initrd_addr_max", 0x22c, 4},
    {"alignment", 0x230, 4},       {"relocatable_kernel", 0x234, 1},
    {"min_alignment", 0x235, 1},   {"xloadflags", 0x236, 2},
    {"cmdline_size", 0x238, 4},    {"payload_offset", 0x248, 4},
    {"payload_length", 0x24c, 4},  {"setup_data", 0x250, 8},
    {"pref_address", 0x258, 8},    {"init_size", 0x260, 4},
    {"handover_offset", 0x264, 4}, {"kernel_info", 0x268, 4},
};

constexpr Field kElf64Header[] = {
    {"EI_MAG", 0, 4},       {"EI_CLASS", 4, 1},   {"EI_DATA", 5, 1},      {"EI_VERSION", 6, 1},
    {"e_type", 16, 2},      {"e_machine", 18, 2}, {"e_version", 20, 4},   {"e_entry", 24, 8},
    {"e_phoff", 32, 8},     {"e_shoff", 40, 8},   {"e_flags", 48, 4},     {"e_ehsize", 52, 2},
    {"e_phentsize", 54, 2}, {"e_phnum", 56, 2},   {"e_shentsize", 58, 2}, {"e_shnum", 60, 2},
};
constexpr Field kElf64Program[] = {
    {"p_type", 0, 4},   {"p_flags", 4, 4},   {"p_offset", 8, 8}, {"p_vaddr", 16, 8},
    {"p_paddr", 24, 8}, {"p_filesz", 32, 8}, {"p_memsz", 40, 8}, {"p_align", 48, 8},
};
constexpr Field kElf32Header[] = {
    {"EI_MAG", 0, 4},       {"EI_CLASS", 4, 1},   {"EI_DATA", 5, 1},      {"EI_VERSION", 6, 1},
    {"e_type", 16, 2},      {"e_machine", 18, 2}, {"e_version", 20, 4},   {"e_entry", 24, 4},
    {"e_phoff", 28, 4},     {"e_shoff", 32, 4},   {"e_flags", 36, 4},     {"e_ehsize", 40, 2},
    {"e_phentsize", 42, 2}, {"e_phnum", 44, 2},   {"e_shentsize", 46, 2}, {"e_shnum", 48, 2},
};
constexpr Field kElf32Program[] = {
    {"p_type", 0, 4},    {"p_offset", 4, 4}, {"p_vaddr", 8, 4},  {"p_paddr", 12, 4},
    {"p_filesz", 16, 4}, {"p_memsz", 20, 4}, {"p_flags", 24, 4}, {"p_align", 28, 4},
};

std::vector<std::uint64_t> extremes(std::size_t size) {
  const std::uint64_t max = ~std::uint64_t{0} >> (64 - 8 * size);
  const std::uint64_t sign = std::uint64_t{1} << (8 * size - 1);
  return {0, 1, max, max - 1, sign, sign - 1};
}

void add_extremes(MalformedList& list, const Bytes& good, std::string_view prefix, std::size_t base,
                  std::span<const Field> fields) {
  for (const Field& field : fields) {
    for (const std::uint64_t value : extremes(field.size)) {
      Bytes file = good;
      store_le(std::span(file).subspan(base + field.offset, field.size), value);
      if (file == good) continue;
      list.push_back({fmt::format("{}{} = {:#x}", prefix, field.name, value), std::move(file)});
    }
  }
}

void add_cut(MalformedList& list, const Bytes& good, std::string_view what, std::size_t size) {
  for (const std::size_t cut : {size - 1, size, size + 1}) {
    if (cut >= good.size()) continue;  // also what wrapped below zero
    list.push_back({fmt::format("{} cut to {} of {} bytes", what, cut, good.size()),
                    Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(cut))});
  }
}

Bytes elf(bool is_64bit = true) {
  ElfSpec spec = linux_elf();
  spec.is_64bit = is_64bit;
  return build_elf(spec);
}

Bytes packed(Bytes payload, Compression compression = Compression::kLz4Legacy) {
  BzImageSpec spec;
  spec.payload = std::move(payload);
  spec.compression = compression;
  return build_bzimage(spec);
}

std::size_t payload_end(const Bytes& file) {
  return kBzImageSetupSize + load_le(std::span(file).subspan(0x248, 4)) +
         load_le(std::span(file).subspan(0x24c, 4));
}

// Where the fields of program header `index` of elf() are.
constexpr std::size_t program64(std::size_t index) { return 64 + index * 56; }

Bytes table(const std::vector<std::uint32_t>& words) {
  Bytes bytes(words.size() * 4);
  for (std::size_t i = 0; i < words.size(); ++i) put32(bytes, i * 4, words[i]);
  return bytes;
}

}  // namespace

MalformedList setup_header_extremes() {
  MalformedList list;
  add_extremes(list, linux_bzimage(Compression::kGzip), "setup header ", 0, kSetupHeader);
  return list;
}

MalformedList elf_header_extremes(bool is_64bit) {
  MalformedList list;
  const Bytes good = elf(is_64bit);
  const char* const kind = is_64bit ? "ELF64 " : "ELF32 ";
  add_extremes(list, good, kind, 0, is_64bit ? std::span<const Field>(kElf64Header) : kElf32Header);
  for (std::size_t i = 0; i < 3; ++i) {
    const std::string prefix = fmt::format("{}program header {} ", kind, i);
    if (is_64bit) {
      add_extremes(list, good, prefix, program64(i), kElf64Program);
    } else {
      add_extremes(list, good, prefix, 52 + i * 32, kElf32Program);
    }
  }
  return list;
}

MalformedList packed_elf_extremes() {
  MalformedList list = elf_header_extremes(true);
  for (Malformed& one : list) {
    one.name += ", in a bzImage";
    one.file = packed(std::move(one.file));
  }
  return list;
}

MalformedList truncated_bzimages() {
  MalformedList list;
  const Bytes good = linux_bzimage(Compression::kGzip);
  const std::size_t boundaries[] = {
      1,
      0x1f1,
      0x1fe,
      0x200,
      0x202,
      0x206,
      0x248,
      0x24c,
      0x250,
      0x258,
      0x260,
      0x26c,
      0x290,
      0x400,
      0x600,
      0x800,
      payload_end(good),
      good.size() - 16,
  };
  for (const std::size_t at : boundaries) add_cut(list, good, "bzImage", at);
  // The same without the size that gives it away.
  Bytes unsized = good;
  put32(unsized, 0x1f4, 0);
  for (const std::size_t at : boundaries) add_cut(list, unsized, "bzImage with syssize 0", at);
  return list;
}

MalformedList truncated_elfs() {
  MalformedList list;
  const Bytes good = elf();
  const std::size_t data = program64(3);
  for (const std::size_t at : {std::size_t{1}, std::size_t{4}, std::size_t{16}, std::size_t{52},
                               std::size_t{64}, program64(1), program64(2), data, data + 0x3000,
                               data + 0x4800, good.size() - 64, good.size() - 1}) {
    add_cut(list, good, "ELF64", at);
    // What is missing of the ELF, but nothing of what is packed.
    if (at < good.size()) {
      list.push_back({fmt::format("bzImage of an ELF64 cut to {}", at),
                      packed(Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(at)))});
    }
  }
  const Bytes small = elf(false);
  for (const std::size_t at :
       {std::size_t{16}, std::size_t{52}, std::size_t{84}, std::size_t{148}, small.size() - 100}) {
    add_cut(list, small, "ELF32", at);
  }
  return list;
}

MalformedList truncated_payloads() {
  MalformedList list;
  const Bytes good = elf();
  for (const Compression compression : kAllCompressions) {
    const Bytes stream = compress(compression, good);
    for (const std::size_t part : {1, 4, 12, 15}) {
      // The compressed file alone, and in a bzImage that claims no more than what is there.
      Bytes cut(stream.begin(),
                stream.begin() + static_cast<std::ptrdiff_t>(stream.size() * part / 16));
      list.push_back({fmt::format("{} stream cut to {}/16", to_string(compression), part), cut});
      BzImageSpec spec;
      spec.payload = std::move(cut);
      spec.payload.resize(spec.payload.size() + 4);
      put32(spec.payload, spec.payload.size() - 4, static_cast<std::uint32_t>(good.size()));
      list.push_back(
          {fmt::format("bzImage with a {} payload cut to {}/16", to_string(compression), part),
           build_bzimage(spec)});
    }
  }
  return list;
}

MalformedList payload_lies() {
  MalformedList list;
  const Bytes good = elf();
  for (const Compression compression : kAllCompressions) {
    const Bytes file = packed(good, compression);
    const std::size_t size_word = payload_end(file) - 4;
    const auto size = static_cast<std::uint32_t>(good.size());
    for (const std::uint32_t claimed :
         {0U, 1U, 64U, size / 2, size - 1, size + 1, 1U << 30, (1U << 30) + 1, ~0U}) {
      Bytes lying = file;
      put32(lying, size_word, claimed);
      list.push_back({fmt::format("{} payload of {} bytes that claims {}", to_string(compression),
                                  size, claimed),
                      std::move(lying)});
    }
    // Two mebibytes of zeroes behind a good ELF, and a size that hides them.
    Bytes large = good;
    large.resize(large.size() + (2U << 20));
    Bytes bomb = packed(large, compression);
    put32(bomb, payload_end(bomb) - 4, size);
    list.push_back({fmt::format("{} bomb", to_string(compression)), std::move(bomb)});
    // Only zeroes.
    list.push_back({fmt::format("{} payload of zeroes", to_string(compression)),
                    packed(Bytes(1U << 20), compression)});
    // Junk between the end of the stream and the size.
    BzImageSpec junk;
    junk.payload = compress(compression, good);
    append(junk.payload, to_bytes("junk"));
    junk.payload.resize(junk.payload.size() + 4);
    put32(junk.payload, junk.payload.size() - 4, size);
    list.push_back({fmt::format("{} payload with junk behind it", to_string(compression)),
                    build_bzimage(junk)});
    // Packed twice.
    list.push_back({fmt::format("{} payload packed twice", to_string(compression)),
                    packed(compress(compression, good), compression)});
  }
  return list;
}

MalformedList segment_lies() {
  MalformedList list;
  const auto add = [&](std::string name, const ElfSpec& spec) {
    const Bytes file = build_elf(spec);
    list.push_back({name + ", in a bzImage", packed(file)});
    list.push_back({std::move(name), file});
  };
  for (const std::uint64_t at : {kLinked, kLinked + 1, kLinked + 0x2fff, kLinked - 0x1000}) {
    ElfSpec spec = linux_elf();
    spec.segments[1].physical = at;
    add(fmt::format("segments that overlap at {:#x}", at), spec);
  }
  for (const std::uint64_t at :
       {std::uint64_t{0}, kLinked - 1, std::uint64_t{0x10fe000}, std::uint64_t{0x1100000},
        std::uint64_t{0xfffffff0}, std::uint64_t{1} << 40, ~std::uint64_t{0} - 0x1000,
        ~std::uint64_t{0} - 0x4000}) {
    ElfSpec spec = linux_elf();
    spec.segments[1].physical = at;
    add(fmt::format("a segment outside of RAM at {:#x}", at), spec);
  }
  for (const std::uint64_t bss :
       {std::uint64_t{1} << 20, std::uint64_t{1} << 32, std::uint64_t{1} << 62,
        ~std::uint64_t{0} - 0x1800, ~std::uint64_t{0} - kLinked - 0x4000}) {
    ElfSpec spec = linux_elf();
    spec.segments[1].bss = bss;
    add(fmt::format("{:#x} bytes of .bss", bss), spec);
  }
  for (const std::uint64_t entry :
       {std::uint64_t{0}, kLinked - 1, kLinked + 0x3000, kLinked + 0x5800, ~std::uint64_t{0}}) {
    ElfSpec spec = linux_elf();
    spec.entry = entry;
    add(fmt::format("the entry {:#x} outside of the segments' bytes", entry), spec);
  }
  ElfSpec many = linux_elf();
  for (std::uint64_t i = 0; i < 100; ++i) {
    many.segments.push_back({kLinked + 0x10000 + i * 16, 0, Bytes(16), 0});
  }
  add("102 segments", many);
  ElfSpec none = linux_elf();
  none.segments.clear();
  add("no segments", none);
  // Not a lie, but awkward: one range of the file in two places.
  Bytes shared = elf();
  put64(shared, program64(1) + 8, program64(3));
  list.push_back({"segments that share their bytes", shared});
  list.push_back({"segments that share their bytes, in a bzImage", packed(shared)});
  return list;
}

MalformedList note_lies() {
  MalformedList list;
  const Bytes good = elf();
  const std::size_t notes =
      static_cast<std::size_t>(load_le(std::span(good).subspan(program64(2) + 8, 8)));
  constexpr Field kNote[] = {{"n_namesz", 0, 4}, {"n_descsz", 4, 4}, {"n_type", 8, 4}};
  add_extremes(list, good, "first note ", notes, kNote);
  const std::size_t second = notes + 12 + 8 + 4;  // behind Linux's, whose description has one byte
  add_extremes(list, good, "second note ", second, kNote);
  for (const std::uint32_t entry : {0U, 1U, 0xfffffU, 0x1003000U, 0x1005800U, ~0U}) {
    ElfSpec spec = linux_elf();
    spec.notes = {pvh_note(entry)};
    spec.segments[0].virtual_address = 0;
    spec.segments[1].virtual_address = 0;
    list.push_back({fmt::format("the PVH entry {:#x}", entry), build_elf(spec)});
  }
  for (const std::size_t size : {0, 1, 3, 5, 7, 9, 100}) {
    ElfSpec spec = linux_elf();
    NoteSpec note = pvh_note(0x1000100);
    note.description.resize(size);
    spec.notes = {note};
    spec.segments[0].virtual_address = 0;
    spec.segments[1].virtual_address = 0;
    list.push_back({fmt::format("a PVH note of {} bytes", size), build_elf(spec)});
  }
  ElfSpec many = linux_elf();
  many.notes.assign(1000, linux_note());
  list.push_back({"1000 notes", build_elf(many)});
  many.notes.assign(5000, linux_note());
  list.push_back({"5000 notes", build_elf(many)});
  return list;
}

MalformedList relocation_lies() {
  MalformedList list;
  const auto add = [&](std::string name, Bytes tail) {
    ElfSpec spec = linux_elf();
    spec.tail = std::move(tail);
    list.push_back({std::move(name), packed(build_elf(spec))});
  };
  constexpr std::uint32_t kGood = 0x81000100;
  const std::uint32_t outside[] = {1,          0x7fffffff, 0x80000000, 0x80ffffff, 0x81002ffd,
                                   0x81003000, 0x81005800, 0x82000000, 0xfffffffe, 0xffffffff};
  for (const std::uint32_t word : outside) {
    add(fmt::format("the 64-bit relocation {:#x}", word), table({0, kGood, word, 0, kGood, 0}));
    add(fmt::format("the inverse relocation {:#x}", word), table({0, kGood, 0, word, 0, kGood}));
    add(fmt::format("the 32-bit relocation {:#x}", word), table({0, kGood, 0, kGood, 0, word}));
  }
  add("a table that does not start with a zero", table({kGood, 0, kGood, 0, kGood}));
  add("a table of four lists", table({0, kGood, 0, kGood, 0, kGood, 0, kGood}));
  add("a table of zeroes", Bytes(4096));
  add("a table of odd size", pattern(4097));
  add("a table of junk", pattern(4096, 7));
  return list;
}

namespace {

// Makes the `words` words of a header at `at`, of which the last of the first `fixed` is the
// checksum, add up to zero again.
void fix_checksum(Bytes& file, std::size_t at, std::size_t fixed) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i + 1 < fixed; ++i) {
    sum += static_cast<std::uint32_t>(load_le(std::span(file).subspan(at + 4 * i, 4)));
  }
  put32(file, at + 4 * (fixed - 1), 0U - sum);
}

// Every word of a header at its extremes.
void add_header(MalformedList& list, const Bytes& good, std::string_view name, std::size_t at,
                std::size_t words, std::size_t fixed) {
  for (std::size_t i = 0; i < words; ++i) {
    for (std::uint64_t value : extremes(4)) {
      Bytes file = good;
      put32(file, at + 4 * i, static_cast<std::uint32_t>(value));
      if (i + 1 < fixed && i != 0) fix_checksum(file, at, fixed);
      if (file == good) continue;
      list.push_back({fmt::format("{} word {} = {:#x}", name, i, value), file});
      if (i % 3 == 0) {
        list.push_back({list.back().name + ", packed", compress(Compression::kGzip, file)});
      }
    }
  }
}

Bytes full_multiboot2(bool elf, std::uint32_t base) {
  return build_multiboot2({.tags = {{1, 0, {6, 15}},
                                    {2, 0, {base, base, base + 0x400, base + 0x500}},
                                    {3, 0, {base + kMultibootEntryOffset}},
                                    {5, 1, {1024, 768, 32}},
                                    {10, 0, {0, 0x7fffffff, 4096, 1}}},
                           .elf = elf,
                           .is_64bit = true});
}

}  // namespace

MalformedList multiboot_extremes() {
  constexpr auto kBase = static_cast<std::uint32_t>(kLinked);
  MalformedList list;
  add_header(list, build_multiboot({.addresses = true}), "Multiboot", 0, 8, 3);
  add_header(list, build_multiboot({}), "Multiboot in ELF32", 84, 8, 3);
  add_header(list, full_multiboot2(false, kBase), "Multiboot2", 0, 32, 4);
  add_header(list, full_multiboot2(true, kBase), "Multiboot2 in ELF64", 120, 32, 4);
  for (const std::uint32_t base : {0U, 1U, 0x80000000U, 0xfffffc00U, 0xffffffffU}) {
    list.push_back({fmt::format("Multiboot at {:#x}", base),
                    build_multiboot({.base = base, .addresses = true})});
    list.push_back({fmt::format("Multiboot2 at {:#x}", base), full_multiboot2(false, base)});
  }
  for (MalformedList sections : {elf_header_extremes(true), elf_header_extremes(false)}) {
    for (Malformed& malformed : sections) {
      // The header goes where the first segment's bytes are.
      const bool is_64bit = malformed.file[4] == std::byte{2};
      const Bytes header = build_multiboot({.addresses = true});
      std::copy(header.begin(), header.begin() + 12,
                malformed.file.begin() + (is_64bit ? 64 + 3 * 56 : 52 + 3 * 32));
      list.push_back({malformed.name + ", with a Multiboot header", std::move(malformed.file)});
    }
  }
  return list;
}

MalformedList truncated_multiboots() {
  MalformedList list;
  const Bytes flat = build_multiboot({.addresses = true});
  const Bytes flat2 = full_multiboot2(false, static_cast<std::uint32_t>(kLinked));
  const Bytes packed_flat = compress(Compression::kGzip, flat);
  for (const std::size_t size : {4U, 8U, 12U, 16U, 20U, 28U, 32U, 64U, 0x200U, 0x3ffU}) {
    add_cut(list, flat, "Multiboot", size);
    add_cut(list, flat2, "Multiboot2", size);
    add_cut(list, packed_flat, "packed Multiboot", size);
  }
  return list;
}

MalformedList flipped_bytes() {
  MalformedList list;
  const Bytes good = linux_bzimage(Compression::kGzip);
  for (std::size_t at = 0x1e8; at < good.size(); at += at < 0x290 ? 4 : 32) {
    if (at >= 0x290 && at < kBzImageSetupSize + 0x400) continue;  // nothing that is parsed
    Bytes file = good;
    file[at] = ~file[at];
    list.push_back({fmt::format("bzImage with byte {:#x} inverted", at), std::move(file)});
  }
  return list;
}

MalformedList malformed_initrds() {
  MalformedList list;
  const Bytes archive = cpio("init", std::string(3000, 'x'));
  constexpr const char* kNumbers[] = {"00000000", "00000001", "ffffffff", "fffffffe",
                                      "80000000", "7fffffff", "zzzzzzzz", "        "};
  for (const std::size_t field : {std::size_t{54}, std::size_t{94}}) {  // c_filesize, c_namesize
    for (const char* const number : kNumbers) {
      Bytes broken = archive;
      std::ranges::copy(to_bytes(number), broken.begin() + static_cast<std::ptrdiff_t>(field));
      append(broken, compress(Compression::kGzip, archive));
      list.push_back({fmt::format("cpio header with '{}' at {}", number, field), broken});
    }
  }
  for (const Compression compression : kAllCompressions) {
    const Bytes stream = compress(compression, archive);
    for (std::size_t part = 0; part < 16; ++part) {
      Bytes cut(stream.begin(),
                stream.begin() + static_cast<std::ptrdiff_t>(stream.size() * part / 16));
      list.push_back({fmt::format("{} archive cut to {}/16", to_string(compression), part), cut});
      Bytes flipped = stream;
      flipped[stream.size() * part / 16] ^= std::byte{0xff};
      list.push_back(
          {fmt::format("{} archive with byte {}/16 inverted", to_string(compression), part),
           flipped});
    }
    Bytes bomb = cpio("big", std::string(8U << 20, '\0'));
    list.push_back({fmt::format("{} bomb", to_string(compression)), compress(compression, bomb)});
    list.push_back({fmt::format("{} archive of junk", to_string(compression)),
                    compress(compression, pattern(1000))});
    Bytes junk = stream;
    append(junk, to_bytes("JUNK!"));
    list.push_back({fmt::format("{} archive with junk behind it", to_string(compression)), junk});
  }
  list.push_back({"zeroes", Bytes(10000)});
  list.push_back({"one byte", Bytes(1, std::byte{'0'})});
  list.push_back({"a cpio magic and nothing else", to_bytes("070701")});
  list.push_back({"an archive that is not aligned", [&] {
                    Bytes bytes(3);
                    append(bytes, archive);
                    return bytes;
                  }()});
  return list;
}

}  // namespace vmm::test
