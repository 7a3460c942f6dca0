// Writes the seeds of the fuzz targets' corpora: small good files of every format.
//
//   make_corpus DIRECTORY     creates DIRECTORY/kernel, elf, decompress, initrd, multiboot
#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "support/initrds.h"
#include "support/kernel_images.h"

namespace {

using namespace vmm::test;  // NOLINT(google-build-using-namespace)

void write(const std::filesystem::path& directory, std::string_view name, const Bytes& bytes) {
  std::filesystem::create_directories(directory);
  std::ofstream out(directory / name, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
}

// linux_elf() with little in it, and a relocation table.
ElfSpec small_elf() {
  ElfSpec spec = linux_elf();
  spec.segments[0].bytes.resize(128);
  spec.segments[1].bytes.resize(64);
  spec.segments[1].bss = 256;
  spec.notes[1] = pvh_note(0x1000010);
  spec.tail.resize(6 * 4);
  put32(spec.tail, 4, 0x81000010);
  put32(spec.tail, 12, 0x81000020);
  put32(spec.tail, 20, 0x81000030);
  return spec;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: make_corpus DIRECTORY\n");
    return 2;
  }
  const std::filesystem::path root = argv[1];
  ElfSpec elf32 = small_elf();
  elf32.is_64bit = false;
  const Bytes elf = build_elf(small_elf());
  write(root / "elf", "elf64", elf);
  write(root / "elf", "elf32", build_elf(elf32));
  write(root / "kernel", "elf64", elf);
  write(root / "kernel", "elf32", build_elf(elf32));
  int number = 0;
  for (const vmm::loader::Compression compression : kAllCompressions) {
    const std::string name = fmt::format("format{}", number);
    BzImageSpec spec;
    spec.payload = elf;
    spec.compression = compression;
    spec.head_size = 64;
    write(root / "kernel", "bzimage_" + name, build_bzimage(spec));
    Bytes stream{static_cast<std::byte>(number)};
    append(stream, compress(compression, elf));
    write(root / "decompress", name, stream);
    Bytes initrd = cpio("early", "x");
    pad(initrd, 512);
    append(initrd, compress(compression, cpio("init", "#!/bin/sh\n")));
    write(root / "initrd", name, initrd);
    ++number;
  }
  write(root / "kernel", "elf64_gzip", compress(vmm::loader::Compression::kGzip, elf));
  const auto multiboot = [&](std::string_view name, const Bytes& image) {
    Bytes input(1);  // at the start
    append(input, image);
    write(root / "multiboot", name, input);
  };
  constexpr std::uint32_t kBase = 0x1000000;
  const std::vector<Multiboot2Tag> tags{
      {1, 0, {6, 15}}, {5, 1, {640, 480, 32}}, {10, 0, {0, ~0U, 1, 0}}};
  std::vector<Multiboot2Tag> placed = tags;
  placed.push_back({2, 0, {kBase, kBase, kBase + 0x400, kBase + 0x500}});
  placed.push_back({3, 0, {kBase + kMultibootEntryOffset}});
  multiboot("elf32", build_multiboot({.size = 0x210}));
  multiboot("elf64", build_multiboot({.is_64bit = true, .size = 0x210}));
  multiboot("addresses", build_multiboot({.addresses = true, .size = 0x210}));
  multiboot("version2_elf", build_multiboot2({.tags = tags}));
  multiboot("version2_addresses", build_multiboot2({.tags = placed, .elf = false}));
  multiboot("gzip", compress(vmm::loader::Compression::kGzip, build_multiboot({})));
  write(root / "kernel", "multiboot", build_multiboot({.size = 0x210}));
  write(root / "kernel", "multiboot2", build_multiboot2({.tags = tags}));
  BzImageSpec old;
  old.version = 0x0204;
  old.head_size = 64;
  write(root / "kernel", "bzimage_2.04", build_bzimage(old));
  write(root / "initrd", "plain", cpio("init", "#!/bin/sh\n"));
  return 0;
}
