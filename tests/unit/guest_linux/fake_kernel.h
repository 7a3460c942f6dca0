// A Linux kernel's memory made by hand: what a guest could have, honest or not.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/size.h"
#include "vmm/debug/symbols.h"
#include "vmm/guest_linux/guest_kernel.h"

namespace vmm::guest_linux {

// BTF, type by type; each function answers the number of its type.
class BtfMaker {
 public:
  struct Member {
    std::string_view name;
    std::uint32_t type;
    std::uint32_t offset;  // in bytes
  };

  std::uint32_t integer(std::uint32_t size) {
    add(0, 1U << 24, size);
    word(size * 8);
    return number_++;
  }
  std::uint32_t pointer() { return plain(2, 0); }
  std::uint32_t alias(std::uint32_t to) { return plain(8, to); }  // a typedef
  std::uint32_t array(std::uint32_t element, std::uint32_t count) {
    add(0, 3U << 24, 0);
    word(element);
    word(element);
    word(count);
    return number_++;
  }
  std::uint32_t structure(std::string_view name, std::uint32_t size,
                          const std::vector<Member>& members) {
    add(text(name), 4U << 24 | static_cast<std::uint32_t>(members.size()), size);
    for (const Member& member : members) {
      word(text(member.name));
      word(member.type);
      word(member.offset * 8);
    }
    return number_++;
  }
  // The number that the next type will have.
  std::uint32_t next() const noexcept { return number_; }

  std::vector<std::byte> bytes() const {
    std::vector<std::byte> all(24);
    const std::uint32_t head[]{0x0001eb9f,
                               24,
                               0,
                               static_cast<std::uint32_t>(types_.size()),
                               static_cast<std::uint32_t>(types_.size()),
                               static_cast<std::uint32_t>(strings_.size())};
    std::memcpy(all.data(), head, sizeof head);
    all.insert(all.end(), types_.begin(), types_.end());
    const auto strings = std::as_bytes(std::span(strings_));
    all.insert(all.end(), strings.begin(), strings.end());
    return all;
  }

 private:
  std::uint32_t plain(std::uint32_t kind, std::uint32_t to) {
    add(0, kind << 24, to);
    return number_++;
  }
  void add(std::uint32_t name, std::uint32_t info, std::uint32_t rest) {
    word(name);
    word(info);
    word(rest);
  }
  void word(std::uint32_t value) {
    const auto bytes = std::as_bytes(std::span(&value, 1));
    types_.insert(types_.end(), bytes.begin(), bytes.end());
  }
  std::uint32_t text(std::string_view name) {
    if (name.empty()) return 0;
    const auto at = static_cast<std::uint32_t>(strings_.size());
    strings_ += name;
    strings_ += '\0';
    return at;
  }

  std::uint32_t number_ = 1;
  std::vector<std::byte> types_;
  std::string strings_ = std::string(1, '\0');
};

// 4 MiB of RAM, which the kernel has at kBase, but for its last page, which is not mapped.
class FakeKernel {
 public:
  static constexpr std::uint64_t kBase = 0xffffffff80000000;

  FakeKernel() {
    std::vector<GuestRegion> regions;
    regions.push_back(*GuestRegion::create(*GpaRange::create(Gpa(0), MiB(4)), {}));
    memory_.emplace(*GuestMemory::create(std::move(regions)));
    put_physical(0x3ff000 + 8 * 511, std::uint64_t{0x3fe000 | 1});  // PML4
    put_physical(0x3fe000 + 8 * 510, std::uint64_t{0x3fd000 | 1});
    put_physical(0x3fd000, std::uint64_t{0 | 1 | 1U << 7});  // a page of 2 MiB
    put_physical(0x3fd000 + 8, std::uint64_t{0x3fc000 | 1});
    for (std::uint64_t i = 0; i < 511; ++i) {
      put_physical(0x3fc000 + 8 * i, std::uint64_t{(MiB(2) + i * 4096) | 1});
    }
  }

  template <typename T>
  void put_physical(std::uint64_t at, const T& value) {
    ASSERT_TRUE(memory_->write(Gpa(at), value));
  }
  // At an offset from kBase.
  template <typename T>
  void put(std::uint64_t at, const T& value) {
    put_physical(at, value);
  }
  void put_bytes(std::uint64_t at, std::span<const std::byte> bytes) {
    ASSERT_TRUE(memory_->write(Gpa(at), bytes));
  }
  void put_text(std::uint64_t at, std::string_view text) {
    put_bytes(at, std::as_bytes(std::span(text)));
  }
  // At 0x300000, with its symbols.
  void put_btf(const BtfMaker& btf) {
    const std::vector<std::byte> bytes = btf.bytes();
    put_bytes(0x300000, bytes);
    symbol("__start_BTF", 0x300000);
    symbol("__stop_BTF", 0x300000 + bytes.size());
  }
  // As the kernel's note, in a page of its own.
  void put_vmcoreinfo(std::string_view text) {
    put(0x200000, std::array<std::uint32_t, 3>{11, static_cast<std::uint32_t>(text.size()), 0});
    put_text(0x20000c, std::string_view("VMCOREINFO\0\0", 12));
    put_text(0x200018, text);
  }
  void symbol(std::string_view name, std::uint64_t at) {
    map_ += fmt::format("{:016x} D {}\n", kBase + at, name);
  }

  const GuestMemory& memory() const { return *memory_; }
  static std::vector<PagingContext> tables() {
    return {{.cr0 = 0x80000001, .cr3 = 0x3ff000, .cr4 = 0x20, .efer = 0x500}};
  }
  KernelMemory view() const { return {*memory_, tables()}; }
  // With what symbol() was called for, if anything.
  Result<GuestKernel> open() {
    if (!map_.empty()) symbols_ = *debug::Symbols::parse_map(map_);
    return GuestKernel::open({.memory = *memory_,
                              .tables = tables(),
                              .symbols = symbols_ ? &*symbols_ : nullptr,
                              .offset = {}});
  }

 private:
  std::optional<GuestMemory> memory_;
  std::string map_;
  std::optional<debug::Symbols> symbols_;
};

}  // namespace vmm::guest_linux
