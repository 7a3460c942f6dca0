#include "support/kernel_images.h"

#include <bzlib.h>
#include <lz4.h>
#include <lz4frame.h>
#include <lzma.h>
#include <lzo/lzo1x.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "base/le.h"

namespace vmm::test {
namespace {

using loader::Compression;

template <typename T>
void put(Bytes& bytes, std::size_t offset, T value) {
  store_le(std::span(bytes).subspan(offset, sizeof(T)), value);
}

template <typename T>
void append_le(Bytes& bytes, T value) {
  bytes.resize(bytes.size() + sizeof(T));
  put(bytes, bytes.size() - sizeof(T), value);
}

void append_be(Bytes& bytes, std::uint64_t value, std::size_t size) {
  for (std::size_t i = size; i-- > 0;) bytes.push_back(static_cast<std::byte>(value >> (8 * i)));
}

void check(bool good) {
  if (!good) std::abort();  // the test itself is broken
}

Bytes gzip(std::span<const std::byte> in) {
  z_stream stream{};
  check(::deflateInit2(&stream, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  Bytes out(::deflateBound(&stream, in.size()) + 32);
  stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(in.data()));
  stream.avail_in = static_cast<uInt>(in.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  check(::deflate(&stream, Z_FINISH) == Z_STREAM_END);
  out.resize(stream.total_out);
  ::deflateEnd(&stream);
  return out;
}

Bytes bzip2(std::span<const std::byte> in) {
  Bytes out(in.size() + in.size() / 50 + 1024);
  auto size = static_cast<unsigned>(out.size());
  check(::BZ2_bzBuffToBuffCompress(reinterpret_cast<char*>(out.data()), &size,
                                   const_cast<char*>(reinterpret_cast<const char*>(in.data())),
                                   static_cast<unsigned>(in.size()), 1, 0, 0) == BZ_OK);
  out.resize(size);
  return out;
}

Bytes lzma(Compression compression, std::span<const std::byte> in) {
  lzma_stream stream = LZMA_STREAM_INIT;
  lzma_options_lzma options{};
  check(!::lzma_lzma_preset(&options, 1));
  check((compression == Compression::kXz ? ::lzma_easy_encoder(&stream, 1, LZMA_CHECK_CRC32)
                                         : ::lzma_alone_encoder(&stream, &options)) == LZMA_OK);
  Bytes out(in.size() + in.size() / 3 + 1024);
  stream.next_in = reinterpret_cast<const std::uint8_t*>(in.data());
  stream.avail_in = in.size();
  stream.next_out = reinterpret_cast<std::uint8_t*>(out.data());
  stream.avail_out = out.size();
  check(::lzma_code(&stream, LZMA_FINISH) == LZMA_STREAM_END);
  out.resize(stream.total_out);
  ::lzma_end(&stream);
  return out;
}

Bytes lz4_legacy(std::span<const std::byte> in) {
  constexpr std::size_t kBlock = std::size_t{8} << 20;
  Bytes out;
  append_le<std::uint32_t>(out, 0x184c2102);
  for (std::size_t at = 0; at < in.size(); at += kBlock) {
    const auto part = in.subspan(at, std::min(kBlock, in.size() - at));
    Bytes block(static_cast<std::size_t>(::LZ4_compressBound(static_cast<int>(part.size()))));
    const int n = ::LZ4_compress_default(
        reinterpret_cast<const char*>(part.data()), reinterpret_cast<char*>(block.data()),
        static_cast<int>(part.size()), static_cast<int>(block.size()));
    check(n > 0);
    append_le<std::uint32_t>(out, static_cast<std::uint32_t>(n));
    append(out, std::span(block).first(static_cast<std::size_t>(n)));
  }
  return out;
}

Bytes lz4_frame(std::span<const std::byte> in) {
  LZ4F_preferences_t preferences{};
  preferences.frameInfo.contentChecksumFlag = LZ4F_contentChecksumEnabled;
  Bytes out(::LZ4F_compressFrameBound(in.size(), &preferences));
  const std::size_t n =
      ::LZ4F_compressFrame(out.data(), out.size(), in.data(), in.size(), &preferences);
  check(::LZ4F_isError(n) == 0);
  out.resize(n);
  return out;
}

Bytes zstd(std::span<const std::byte> in) {
  Bytes out(::ZSTD_compressBound(in.size()));
  const std::size_t n = ::ZSTD_compress(out.data(), out.size(), in.data(), in.size(), 3);
  check(::ZSTD_isError(n) == 0);
  out.resize(n);
  return out;
}

// lzop's container, with the flags and checksums that lzop 1.04 writes by default.
Bytes lzop(std::span<const std::byte> in) {
  check(::lzo_init() == LZO_E_OK);
  constexpr std::array<std::uint8_t, 9> kMagic{0x89, 'L', 'Z', 'O', 0, 0x0d, 0x0a, 0x1a, 0x0a};
  const auto adler = [](std::span<const std::byte> bytes) {
    return ::adler32_z(1, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
  };
  Bytes out;
  append(out, std::as_bytes(std::span(kMagic)));
  append_be(out, 0x1040, 2);       // version
  append_be(out, 0x20a0, 2);       // of the library
  append_be(out, 0x0940, 2);       // needed to extract
  append_be(out, 1, 1);            // LZO1X-1
  append_be(out, 5, 1);            // level
  append_be(out, 0x0300'0001, 4);  // Unix, Adler-32 of the output
  append_be(out, 0100644, 4);      // mode
  append_be(out, 0, 8);            // time
  append_be(out, 0, 1);            // name
  append_be(out, adler(std::span(out).subspan(kMagic.size())), 4);
  constexpr std::size_t kBlock = 256 * 1024;
  for (std::size_t at = 0; at < in.size(); at += kBlock) {
    const auto part = in.subspan(at, std::min(kBlock, in.size() - at));
    Bytes block(part.size() + part.size() / 16 + 64 + 3);
    std::vector<std::uint64_t> work(LZO1X_1_MEM_COMPRESS / 8 + 1);
    lzo_uint n = block.size();
    check(::lzo1x_1_compress(reinterpret_cast<const lzo_byte*>(part.data()), part.size(),
                             reinterpret_cast<lzo_byte*>(block.data()), &n,
                             work.data()) == LZO_E_OK);
    const bool stored = n >= part.size();
    append_be(out, part.size(), 4);
    append_be(out, stored ? part.size() : n, 4);
    append_be(out, adler(part), 4);
    append(out, stored ? part : std::span<const std::byte>(block).first(n));
  }
  append_be(out, 0, 4);
  return out;
}

template <typename Word>
void put_elf_header(Bytes& out, const ElfSpec& spec, std::size_t phnum, std::size_t shoff) {
  constexpr bool k64 = sizeof(Word) == 8;
  constexpr std::size_t kHeader = k64 ? 64 : 52;
  const std::array<std::uint8_t, 7> ident{0x7f, 'E', 'L', 'F', k64 ? 2 : 1, 1, 1};
  std::ranges::copy(std::as_bytes(std::span(ident)), out.begin());
  put16(out, 16, 2);             // ET_EXEC
  put16(out, 18, k64 ? 62 : 3);  // EM_X86_64, EM_386
  put32(out, 20, 1);
  put<Word>(out, 24, static_cast<Word>(spec.entry));
  put<Word>(out, 24 + sizeof(Word), kHeader);  // e_phoff
  put<Word>(out, 24 + 2 * sizeof(Word), static_cast<Word>(shoff));
  const std::size_t at = 24 + 3 * sizeof(Word) + 4;  // e_ehsize
  put16(out, at, kHeader);
  put16(out, at + 2, k64 ? 56 : 32);  // e_phentsize
  put16(out, at + 4, static_cast<std::uint16_t>(phnum));
  put16(out, at + 6, k64 ? 64 : 40);  // e_shentsize
  put16(out, at + 8, 1);              // e_shnum
}

struct Program {
  std::uint32_t type, flags;
  std::uint64_t offset, vaddr, paddr, filesz, memsz, align;
};

void put_program_header(Bytes& out, bool is_64bit, std::size_t index, const Program& p) {
  if (is_64bit) {
    const std::size_t at = 64 + index * 56;
    put32(out, at, p.type);
    put32(out, at + 4, p.flags);
    const std::array<std::uint64_t, 6> words{p.offset, p.vaddr, p.paddr,
                                             p.filesz, p.memsz, p.align};
    for (std::size_t i = 0; i < words.size(); ++i) put64(out, at + 8 + i * 8, words[i]);
    return;
  }
  const std::size_t at = 52 + index * 32;
  const std::array<std::uint64_t, 8> words{p.type,   p.offset, p.vaddr, p.paddr,
                                           p.filesz, p.memsz,  p.flags, p.align};
  for (std::size_t i = 0; i < words.size(); ++i) {
    put32(out, at + i * 4, static_cast<std::uint32_t>(words[i]));
  }
}

Bytes note_bytes(const std::vector<NoteSpec>& notes) {
  Bytes out;
  for (const NoteSpec& note : notes) {
    append_le<std::uint32_t>(out, static_cast<std::uint32_t>(note.owner.size() + 1));
    append_le<std::uint32_t>(out, static_cast<std::uint32_t>(note.description.size()));
    append_le<std::uint32_t>(out, note.type);
    append(out, to_bytes(note.owner));
    out.resize((out.size() + 1 + 3) / 4 * 4);
    append(out, note.description);
    out.resize((out.size() + 3) / 4 * 4);
  }
  return out;
}

}  // namespace

Bytes to_bytes(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

Bytes pattern(std::size_t size, std::uint8_t seed) {
  Bytes bytes(size);
  std::uint32_t state = seed;
  for (std::size_t i = 0; i < size; ++i) {
    state = state * 1664525 + 1013904223;
    bytes[i] = static_cast<std::byte>(i % 64 < 32 ? state >> 24 : seed);
  }
  return bytes;
}

void put16(Bytes& bytes, std::size_t offset, std::uint16_t value) { put(bytes, offset, value); }
void put32(Bytes& bytes, std::size_t offset, std::uint32_t value) { put(bytes, offset, value); }
void put64(Bytes& bytes, std::size_t offset, std::uint64_t value) { put(bytes, offset, value); }

void append(Bytes& bytes, std::span<const std::byte> more) {
  bytes.insert(bytes.end(), more.begin(), more.end());
}

Bytes compress(Compression compression, std::span<const std::byte> bytes) {
  switch (compression) {
    case Compression::kGzip:
      return gzip(bytes);
    case Compression::kBzip2:
      return bzip2(bytes);
    case Compression::kLzma:
    case Compression::kXz:
      return lzma(compression, bytes);
    case Compression::kLzo:
      return lzop(bytes);
    case Compression::kLz4Legacy:
      return lz4_legacy(bytes);
    case Compression::kLz4Frame:
      return lz4_frame(bytes);
    case Compression::kZstd:
      return zstd(bytes);
  }
  std::abort();
}

Bytes build_elf(const ElfSpec& spec) {
  const std::size_t phnum = spec.segments.size() + (spec.notes.empty() ? 0 : 1);
  const std::size_t headers = spec.is_64bit ? 64 + phnum * 56 : 52 + phnum * 32;
  Bytes out(headers);
  std::size_t index = 0;
  for (const SegmentSpec& s : spec.segments) {
    put_program_header(out, spec.is_64bit, index++,
                       {1, 7, out.size(), s.virtual_address, s.physical, s.bytes.size(),
                        s.bytes.size() + s.bss, 0x1000});
    append(out, s.bytes);
  }
  out.resize((out.size() + 7) / 8 * 8);
  if (!spec.notes.empty()) {
    const Bytes notes = note_bytes(spec.notes);
    put_program_header(out, spec.is_64bit, index,
                       {4, 4, out.size(), 0, 0, notes.size(), notes.size(), 4});
    append(out, notes);
    out.resize((out.size() + 7) / 8 * 8);
  }
  const std::size_t shoff = out.size();
  out.resize(shoff + (spec.is_64bit ? 64 : 40));
  if (spec.is_64bit) {
    put_elf_header<std::uint64_t>(out, spec, phnum, shoff);
  } else {
    put_elf_header<std::uint32_t>(out, spec, phnum, shoff);
  }
  append(out, spec.tail);
  return out;
}

NoteSpec linux_note() { return {"Linux", 0x101, Bytes(1)}; }

NoteSpec pvh_note(std::uint32_t entry) {
  NoteSpec note{"Xen", 18, Bytes(4)};
  put32(note.description, 0, entry);
  return note;
}

ElfSpec linux_elf() {
  constexpr std::uint64_t kMap = 0xffffffff80000000;
  ElfSpec spec;
  spec.entry = 0x1000000;
  spec.segments.push_back({0x1000000, kMap + 0x1000000, pattern(0x3000, 1), 0});
  spec.segments.push_back({0x1004000, kMap + 0x1004000, pattern(0x1800, 2), 0x2800});
  spec.notes = {linux_note(), pvh_note(0x1000100)};
  return spec;
}

Bytes build_bzimage(const BzImageSpec& spec) {
  Bytes out(kBzImageSetupSize);
  out[0x1f1] = std::byte{1};  // setup_sects
  put16(out, 0x1fe, 0xaa55);
  put16(out, 0x200, 0x6aeb);  // jump to 0x26c
  put32(out, 0x202, 0x53726448);
  put16(out, 0x206, spec.version);
  out[0x211] = std::byte{spec.loadflags};
  put32(out, 0x214, 0x100000);
  put32(out, 0x22c, 0x7fffffff);
  put32(out, 0x230, spec.kernel_alignment);
  out[0x234] = std::byte{spec.relocatable};
  out[0x235] = std::byte{21};
  put16(out, 0x236, spec.xloadflags);
  put32(out, 0x238, 2047);
  put64(out, 0x258, spec.pref_address);
  put32(out, 0x260, spec.init_size);
  constexpr std::size_t kVersionAt = 0x300;
  put16(out, 0x20e, kVersionAt - 512);
  check(spec.version_string.size() < kBzImageSetupSize - kVersionAt);
  std::ranges::copy(to_bytes(spec.version_string), out.begin() + kVersionAt);

  append(out, pattern(spec.head_size, 9));
  if (!spec.payload.empty()) {
    Bytes payload = spec.payload;
    if (spec.compression) {
      payload = compress(*spec.compression, spec.payload);
      if (*spec.compression != Compression::kGzip) {
        append_le<std::uint32_t>(payload, static_cast<std::uint32_t>(spec.payload.size()));
      }
    }
    put32(out, 0x248, static_cast<std::uint32_t>(spec.head_size));
    put32(out, 0x24c, static_cast<std::uint32_t>(payload.size()));
    append(out, payload);
  }
  out.resize((out.size() + 15) / 16 * 16);
  put32(out, 0x1f4, static_cast<std::uint32_t>((out.size() - kBzImageSetupSize) / 16));
  return out;
}

Bytes linux_bzimage(std::optional<Compression> compression) {
  BzImageSpec spec;
  spec.payload = build_elf(linux_elf());
  spec.compression = compression;
  return build_bzimage(spec);
}

namespace {

// `body` in an ELF that loads it at `base`, or as it is.
Bytes wrap_multiboot(Bytes body, bool elf, bool is_64bit, std::uint64_t base, std::uint64_t bss) {
  if (!elf) return body;
  ElfSpec spec;
  spec.is_64bit = is_64bit;
  spec.entry = base + kMultibootEntryOffset;
  spec.segments.push_back({base, base, std::move(body), bss});
  return build_elf(spec);
}

}  // namespace

Bytes build_multiboot(const MultibootSpec& spec) {
  constexpr std::uint32_t kMagic = 0x1badb002;
  Bytes body = pattern(spec.size, 9);
  const std::uint32_t flags = spec.flags | (spec.addresses ? 0x10000U : 0U);
  const auto base = static_cast<std::uint32_t>(spec.base);
  put32(body, 0, kMagic);
  put32(body, 4, flags);
  put32(body, 8, 0U - kMagic - flags);
  put32(body, 12, base);
  put32(body, 16, base);
  put32(body, 20, base + static_cast<std::uint32_t>(spec.size));
  put32(body, 24, base + static_cast<std::uint32_t>(spec.size) + spec.bss);
  put32(body, 28, base + kMultibootEntryOffset);
  return wrap_multiboot(std::move(body), !spec.addresses, spec.is_64bit, spec.base, spec.bss);
}

Bytes build_multiboot2(const Multiboot2Spec& spec) {
  constexpr std::uint32_t kMagic = 0xe85250d6;
  Bytes header(16);
  const auto add = [&](const Multiboot2Tag& tag) {
    append_le(header, tag.type);
    append_le(header, tag.flags);
    append_le(header, static_cast<std::uint32_t>(8 + 4 * tag.words.size()));
    for (const std::uint32_t word : tag.words) append_le(header, word);
    while (header.size() % 8 != 0) header.push_back({});
  };
  for (const Multiboot2Tag& tag : spec.tags) add(tag);
  add({});
  const auto length = static_cast<std::uint32_t>(header.size());
  put32(header, 0, kMagic);
  put32(header, 8, length);
  put32(header, 12, 0U - kMagic - length);
  Bytes body = pattern(0x400, 9);
  std::copy(header.begin(), header.end(), body.begin());
  // An ELF32's first segment begins at a multiple of four only.
  if (spec.elf && !spec.is_64bit) body.insert(body.begin(), 4, std::byte{0});
  return wrap_multiboot(std::move(body), spec.elf, spec.is_64bit, spec.base, 0x100);
}

}  // namespace vmm::test
