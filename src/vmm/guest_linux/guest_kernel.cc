#include "vmm/guest_linux/guest_kernel.h"

#include <array>
#include <utility>

#include "base/size.h"
#include "vmm/guest_linux/btf.h"
#include "vmm/guest_linux/dwarf.h"
#include "vmm/guest_linux/kallsyms.h"

namespace vmm::guest_linux {
namespace {

// All that anybody here asks for.
constexpr auto kNames =
    std::to_array<std::string_view>({"prb", "init_task", "modules", "__start_BTF", "__stop_BTF"});

}  // namespace

Result<GuestKernel> GuestKernel::open(KernelSources sources) {
  if (sources.tables.empty()) {
    return fail(ErrorCode::kBadState, "Paging is off on all CPUs: there is no Linux kernel yet");
  }
  KernelMemory memory(sources.memory, sources.tables);
  GuestKernel kernel(std::move(sources), std::move(memory));
  kernel.table_ = VmcoreinfoTable::parse(kernel.vmcoreinfo_text());
  if (!kernel.sources_.offset) kernel.sources_.offset = kernel.table_.kernel_offset();
  if (kernel.sources_.symbols != nullptr) return kernel;
  if (kernel.table_.empty()) {
    return fail(
        ErrorCode::kUnsupported,
        "Nothing says where a Linux kernel has its variables: give --symbols its System.map "
        "or vmlinux (a kernel with CONFIG_PROC_KCORE or CONFIG_KEXEC says it in its memory, "
        "when it has come so far)");
  }
  if (auto names = find_kallsyms(kernel.memory_, kernel.table_, kNames)) {
    kernel.own_names_ = std::move(*names);
  }
  return kernel;
}

// Where the kernel's variable leads to, else wherever it is found.
std::string GuestKernel::vmcoreinfo_text() const {
  if (sources_.symbols != nullptr) {
    const auto variable = known_symbol("vmcoreinfo_data");
    const auto size_at = known_symbol("vmcoreinfo_size");
    if (!variable || !size_at) return {};
    constexpr std::uint64_t kMost = 4096;
    const auto data = memory_.read<std::uint64_t>(*variable);
    const auto size = memory_.read<std::uint64_t>(*size_at);
    if (!data || !size || *size > kMost) return {};
    std::string text(static_cast<std::size_t>(*size), '\0');
    if (!memory_.read(*data, std::as_writable_bytes(std::span(text)))) return {};
    return text;
  }
  return find_vmcoreinfo(memory_.physical());
}

std::optional<std::uint64_t> GuestKernel::known_symbol(std::string_view name) const {
  if (sources_.symbols != nullptr) {
    if (const auto linked = sources_.symbols->find(name)) {
      return *linked + sources_.offset.value_or(0);
    }
  }
  if (const auto told = table_.symbol(name)) return told;
  const auto own = own_names_.find(name);
  return own == own_names_.end() ? std::nullopt : std::optional(own->second);
}

Result<std::uint64_t> GuestKernel::symbol(std::string_view name) const {
  if (const auto known = known_symbol(name)) return *known;
  if (sources_.symbols != nullptr) {
    return fail(
        ErrorCode::kUnsupported,
        "The file of --symbols has no variable {}: it is no Linux kernel's, or one that was "
        "built without",
        name);
  }
  return fail(ErrorCode::kUnsupported,
              "The kernel does not say where its variable {} is (CONFIG_KALLSYMS_ALL, Linux 6.0): "
              "give --symbols its System.map or vmlinux",
              name);
}

Result<Layouts> GuestKernel::layouts_of_btf(std::span<const std::string_view> wanted) const {
  const auto begin = VMM_TRY(symbol("__start_BTF")), end = VMM_TRY(symbol("__stop_BTF"));
  if (end <= begin || end - begin > kMostBtf) {
    return fail(ErrorCode::kBadState, "The kernel's BTF is said to have {}",
                format_size(end - begin));
  }
  std::vector<std::byte> bytes(static_cast<std::size_t>(end - begin));
  VMM_TRY(memory_.read(begin, bytes));
  return read_btf(bytes, wanted);
}

Result<Layouts> GuestKernel::layouts(std::span<const std::string_view> needed,
                                     std::span<const std::string_view> more) const {
  Layouts all;
  table_.for_each_size(
      [&](std::string_view name, std::uint64_t size) { all.add_struct(name, size); });
  table_.for_each_offset([&](std::string_view name, std::string_view field, std::uint64_t offset) {
    all.add_field(name, field, {.offset = offset, .size = 0});
  });
  if (more.empty() && all.has_all(needed)) return all;
  std::vector<std::string_view> wanted(needed.begin(), needed.end());
  wanted.insert(wanted.end(), more.begin(), more.end());
  if (const auto btf = layouts_of_btf(wanted)) all.add(*btf);
  if (all.has_all(needed)) return all;
  std::string reason = "--symbols is not given";
  if (sources_.symbols != nullptr) {
    const auto dwarf = read_dwarf(sources_.symbols->path(), wanted);
    if (dwarf) all.add(*dwarf);
    reason = dwarf ? "the file of --symbols lacks some of them" : dwarf.error().message();
  }
  if (all.has_all(needed)) return all;
  return fail(ErrorCode::kUnsupported,
              "Nothing says how this kernel's structures are laid out: it has no BTF "
              "(CONFIG_DEBUG_INFO_BTF), and {}; give --symbols a vmlinux with debug information",
              reason);
}

}  // namespace vmm::guest_linux
