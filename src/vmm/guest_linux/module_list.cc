#include "vmm/guest_linux/module_list.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "vmm/guest_linux/kernel_list.h"

namespace vmm::guest_linux {
namespace {

constexpr auto kStructs = std::to_array<std::string_view>({"module"});
// Where modules can be unloaded.
constexpr auto kMore = std::to_array<std::string_view>({"module_use"});
constexpr std::size_t kMostModules = 4096;
constexpr std::size_t kMostName = 64;
constexpr std::size_t kMostUsers = 64;  // of one module
constexpr std::uint64_t kMostParts = 16;
constexpr std::uint32_t kBeingMade = 3;  // MODULE_STATE_UNFORMED: as if it were not there

// A part of a module's memory: where the structure has its address and its size.
struct Part {
  std::uint64_t base = 0;
  Field size;
};

class Reader {
 public:
  static Result<Reader> open(const GuestKernel& kernel) {
    Reader reader(kernel.memory());
    const Layouts layouts = VMM_TRY(kernel.layouts(kStructs, kMore));
    reader.list_ = VMM_TRY(layouts.offset("module", "list"));
    reader.name_ = VMM_TRY(layouts.field("module", "name"));
    reader.state_ = VMM_TRY(layouts.field("module", "state"));
    if (const Field* const uses = layouts.find("module", "refcnt")) reader.uses_ = uses->offset;
    reader.find_parts(layouts);
    reader.find_users(layouts);
    return reader;
  }

  std::uint64_t list() const noexcept { return list_; }

  Result<Module> read(std::uint64_t at) const {
    Module module{.name = VMM_TRY(name(at)),
                  .state = VMM_TRY(memory_->read<std::uint32_t>(at + state_.offset))};
    for (const Part& part : parts_) {
      const auto base = VMM_TRY(memory_->read<std::uint64_t>(at + part.base));
      if (module.text == 0) module.text = base;
      module.size += VMM_TRY(memory_->integer(at + part.size.offset, part.size.size));
    }
    // The kernel counts itself as one.
    if (uses_) module.uses = std::int64_t{VMM_TRY(memory_->read<std::int32_t>(at + *uses_))} - 1;
    if (users_) {
      const std::string cut = for_each_node(
          *memory_, at + *users_, kMostUsers, [&](std::uint64_t node) -> Result<void> {
            const std::uint64_t user =
                VMM_TRY(memory_->read<std::uint64_t>(node - use_node_ + use_source_));
            module.users.push_back(VMM_TRY(name(user)));
            return {};
          });
      if (!cut.empty()) module.users.push_back("...");
    }
    return module;
  }

 private:
  explicit Reader(const KernelMemory& memory) : memory_(&memory) {}

  Result<std::string> name(std::uint64_t module) const {
    return memory_->text(module + name_.offset,
                         static_cast<std::size_t>(std::min<std::uint64_t>(
                             name_.size != 0 ? name_.size : kMostName, kMostName)));
  }

  // Linux 6.4 has an array of parts, the code first, others a core and what initializes it.
  void find_parts(const Layouts& layouts) {
    const auto add = [&](std::string_view part, std::uint64_t further) {
      const Field* const base = layouts.find("module", fmt::format("{}.base", part));
      const Field* const size = layouts.find("module", fmt::format("{}.size", part));
      if (base == nullptr || size == nullptr) return;
      parts_.push_back({.base = base->offset + further,
                        .size = {.offset = size->offset + further, .size = size->size}});
    };
    add("core_layout", 0);
    add("init_layout", 0);
    const Field* const all = layouts.find("module", "mem");
    const Field* const one = layouts.find("module", "mem[]");
    if (all == nullptr || one == nullptr || one->size == 0) return;
    for (std::uint64_t i = 0; i < std::min(all->size / one->size, kMostParts); ++i) {
      add("mem[]", i * one->size);
    }
  }

  void find_users(const Layouts& layouts) {
    const Field* const users = layouts.find("module", "source_list");
    const Field* const node = layouts.find("module_use", "source_list");
    const Field* const source = layouts.find("module_use", "source");
    if (users == nullptr || node == nullptr || source == nullptr) return;
    users_ = users->offset;
    use_node_ = node->offset;
    use_source_ = source->offset;
  }

  const KernelMemory* memory_;
  std::uint64_t list_ = 0;
  Field name_, state_;
  std::vector<Part> parts_;
  std::optional<std::uint64_t> uses_, users_;
  std::uint64_t use_node_ = 0, use_source_ = 0;
};

std::string_view state_text(std::uint32_t state) {
  switch (state) {
    case 0:
      return "";
    case 1:
      return " (loading)";
    case 2:
      return " (unloading)";
    default:
      return " (?)";
  }
}

}  // namespace

Result<ModuleList> read_modules(const GuestKernel& kernel) {
  const std::uint64_t head = VMM_TRY(kernel.symbol("modules"));
  const Reader reader = VMM_TRY(Reader::open(kernel));
  ModuleList list;
  list.cut =
      for_each_node(kernel.memory(), head, kMostModules, [&](std::uint64_t node) -> Result<void> {
        Module module = VMM_TRY(reader.read(node - reader.list()));
        if (module.state == kBeingMade) return {};
        list.modules.push_back(std::move(module));
        return {};
      });
  return list;
}

std::string format_modules(const ModuleList& list) {
  std::string text = fmt::format("{:<18} {:>9} {:>5} MODULE\n", "TEXT", "SIZE", "USES");
  for (const Module& module : list.modules) {
    const std::string uses = module.uses ? fmt::format("{}", *module.uses) : std::string("-");
    text += fmt::format("{:#018x} {:>9} {:>5} {}{}{}{}\n", module.text, module.size, uses,
                        module.name, state_text(module.state),
                        module.users.empty() ? "" : ", used by ", fmt::join(module.users, ", "));
  }
  if (!list.cut.empty()) text += fmt::format("These are not all: {}.\n", list.cut);
  return text;
}

}  // namespace vmm::guest_linux
