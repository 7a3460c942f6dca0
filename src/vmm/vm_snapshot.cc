// A guest at rest: saved, restored, cloned, written to a core file.
#include <fmt/format.h>

#include <optional>
#include <string>
#include <utility>

#include "vmm/core/write_core.h"
#include "vmm/generation_id.h"
#include "vmm/shadow_pages.h"
#include "vmm/snapshot/convert_irqchip.h"
#include "vmm/snapshot/page_loader.h"
#include "vmm/snapshot/ram_image.h"
#include "vmm/snapshot/restore.h"
#include "vmm/snapshot/save.h"
#include "vmm/snapshot/snapshot_file.h"
#include "vmm/vm_impl.h"

namespace vmm {

Result<std::unique_lock<std::mutex>> Vm::Impl::at_rest() const {
  std::unique_lock<std::mutex> lock(run_mutex, std::try_to_lock);
  if (!lock) return fail(ErrorCode::kBadState, "The guest is running");
  return lock;
}

Result<void> Vm::Impl::go_on_from(const std::shared_ptr<const Snapshot>& snapshot) {
  const WholeState* state = &snapshot->state();
  std::optional<WholeState> converted;
  if (state->machine.shape.irqchip != shape.irqchip) {
    state = &converted.emplace(VMM_TRY(convert_irqchip(*state, shape)));
  }
  const MachineShape& saved = state->machine.shape;
  VMM_TRY(check_fits(shape, saved));
  origin = snapshot;
  VMM_TRY(ask_for_format());
  VMM_TRY(restore_state(*machine, *state, cpus(), *format,
                        {.fresh = true, .catch_up = !saved.frozen_clock}));
  // What the state has put on the board has taken the place of that.
  if (machine->page_loader) {
    if (auto lost = machine->page_loader->error()) return tl::unexpected<Error>(*std::move(lost));
  }
  // Where nothing is to have gone on the guest is not to notice that it is another one.
  return saved.frozen_clock ? Result<void>() : renew_generation_id(*machine, state->machine.files);
}

Result<void> Vm::Impl::load_rest(const std::function<bool()>& cancelled) {
  return machine->page_loader ? machine->page_loader->load_rest(cancelled) : Result<void>();
}

void Vm::Impl::post_lost_memory() {
  const auto lost = machine->page_loader ? machine->page_loader->error() : std::nullopt;
  if (!lost) return;
  machine->stops.post(StopInfo{.reason = StopReason::kMemoryFault, .detail = lost->message()});
}

Result<void> Vm::Impl::ask_for_format() {
  if (!format) format.emplace(VMM_TRY(vcpu_format(*machine, plan)));
  return {};
}

// The guest's memory is its own, without what a debugger has put there, as long as this lives.
std::unique_ptr<debug::Debugger::Lifted> Vm::Impl::own_memory() const {
  if (!debugger) return nullptr;
  return std::make_unique<debug::Debugger::Lifted>(*debugger);
}

Result<WholeState> Vm::Impl::state() {
  VMM_TRY(check_savable(*machine));
  VMM_TRY(ask_for_format());
  VMM_TRY(bring_to_rest(*machine, cpus()));
  return save_state(*machine, shape, cpus(), *format);
}

Result<std::shared_ptr<const Snapshot>> Vm::Impl::snapshot() {
  const auto lock = VMM_TRY(at_rest());
  const auto own = own_memory();
  return snapshot_at_rest();
}

Result<std::shared_ptr<const Snapshot>> Vm::Impl::snapshot_at_rest() {
  VMM_TRY(load_rest());
  WholeState whole = VMM_TRY(state());
  const RamImage* const base = origin ? &origin->ram() : nullptr;
  UniqueFd file = VMM_TRY(RamImage::create_memory_file(machine->memory.size()));
  RamImage ram = VMM_TRY(RamImage::copy_of(machine->memory, base, std::move(file), {}));
  auto made = std::make_shared<const Snapshot>(std::move(whole), std::move(ram), quirks_of(plan),
                                               decoded_lines);
  VMM_TRY(tracked->begin(made));
  return made;
}

Result<void> Vm::Impl::save(const std::string& path, const std::function<bool()>& cancelled) {
  auto lock = VMM_TRY(at_rest());
  VMM_TRY(load_rest(cancelled));
  auto own = own_memory();
  const WholeState whole = VMM_TRY(state());
  SnapshotFile file = VMM_TRY(SnapshotFile::create(path));
  const RamImage* const base = origin ? &origin->ram() : nullptr;
  UniqueFd memory = VMM_TRY(file.ram_file());
  const RamImage ram = VMM_TRY(RamImage::copy_of(
      machine->memory, base, std::move(memory),
      {.offset = SnapshotFile::kRamOffset, .checksums = true, .cancelled = cancelled}));
  const SnapshotId id = VMM_TRY(file.seal(whole, ram));
  VMM_TRY(tracked->saved(id, /*always=*/false));
  own.reset();
  lock.unlock();  // the disk may take its time
  return file.commit();
}

Result<void> Vm::Impl::save_increment(const std::string& path, const std::string& base,
                                      const std::function<bool()>& cancelled) {
  SnapshotBase on{.id = {}, .name = VMM_TRY(name_of_base(path, base))};
  const std::shared_ptr<const Snapshot> earlier = VMM_TRY(Snapshot::open(base));
  on.id = earlier->id();
  auto lock = VMM_TRY(at_rest());
  VMM_TRY(load_rest(cancelled));
  auto own = own_memory();
  const WholeState whole = VMM_TRY(state());
  SnapshotFile file = VMM_TRY(SnapshotFile::create(path));
  const std::optional<PageSet> written = VMM_TRY(tracked->written_since(on.id));
  UniqueFd memory = VMM_TRY(file.ram_file());
  const RamImage ram = VMM_TRY(RamImage::changes_of(
      machine->memory, origin ? &origin->ram() : nullptr, earlier->ram(),
      written ? &*written : nullptr, std::move(memory),
      {.offset = SnapshotFile::kRamOffset, .checksums = true, .cancelled = cancelled}));
  const SnapshotId id = VMM_TRY(file.seal(whole, ram, &on));
  VMM_TRY(tracked->saved(id, /*always=*/true));
  own.reset();
  lock.unlock();
  return file.commit();
}

Result<void> Vm::Impl::write_core(const std::string& path, const std::function<bool()>& cancelled) {
  auto lock = VMM_TRY(at_rest());
  VMM_TRY(load_rest(cancelled));
  auto own = own_memory();
  return vmm::write_core(
      *machine, cpus(), path,
      {.base = origin ? &origin->ram() : nullptr, .cancelled = cancelled, .memory_written = [&] {
         own.reset();
         lock.unlock();
       }});
}

Result<std::unique_ptr<FrozenCore>> Vm::Impl::freeze_core() {
  const auto lock = VMM_TRY(at_rest());
  VMM_TRY(load_rest());
  const auto own = own_memory();
  std::shared_ptr<const RamImage> base;
  if (origin) base = std::shared_ptr<const RamImage>(origin, &origin->ram());
  return vmm::freeze_core(*machine, cpus(), std::move(base));
}

Result<void> Vm::Impl::reset_to(const std::shared_ptr<const Snapshot>& snapshot) {
  const auto lock = VMM_TRY(at_rest());
  const auto own = own_memory();
  return reset_at_rest(snapshot);
}

Result<void> Vm::Impl::reset_at_rest(const std::shared_ptr<const Snapshot>& snapshot) {
  VMM_TRY(check_savable(*machine));
  VMM_TRY(check_fits(shape, snapshot->state().machine.shape));
  VMM_TRY(load_rest());
  VMM_TRY(ask_for_format());
  VMM_TRY(bring_to_rest(*machine, cpus()));
  std::optional<ShadowPagesDropped> dropped;
  if (shadow_pages.possible(cpus())) dropped.emplace(*machine);
  auto done = tracked->reset_to(snapshot);
  if (done) done = restore_state(*machine, snapshot->state(), cpus(), *format, {});
  if (dropped) {
    auto gone = dropped->wait();
    if (gone) shadow_pages.dropped();
    if (done) done = std::move(gone);
  }
  if (done) {
    control->time_was_set(true);
  } else {
    // Neither this machine nor that: it must not run.
    machine->stops.reset(StopBoard::Stop(done.error()));
  }
  return done;
}

Result<void> Vm::Impl::put_back(const std::shared_ptr<const Snapshot>& snapshot, bool compare) {
  VMM_TRY(load_rest());
  VMM_TRY(ask_for_format());
  std::string differs;
  if (compare) {
    const x86::Registers& wanted = snapshot->state().machine.cpus.front().registers;
    const auto look = [&](kvm::VcpuFd& cpu, ExitDispatch&) -> Result<void> {
      if (VMM_TRY(cpu.registers()) != wanted) differs = "registers";
      return {};
    };
    VMM_TRY(cpus().with(0, look));
    if (const auto page = VMM_TRY(tracked->difference(*snapshot))) {
      differs += fmt::format("{}memory at GPA {}", differs.empty() ? "" : ", ", *page);
    }
  }
  auto done = tracked->reset_to(snapshot);
  if (done && shadow_pages.possible(cpus())) {
    done = drop_shadow_pages(*machine);  // the event loop is at work
    if (done) shadow_pages.dropped();
  }
  if (done) done = restore_first_cpu(snapshot->state(), cpus(), *format);
  if (done) control->time_was_set(false);
  if (!done) machine->stops.reset(StopBoard::Stop(done.error()));
  if (done && !differs.empty()) {
    return fail(ErrorCode::kBadState, "The guest was not as it was recorded: {}", differs);
  }
  return done;
}

Result<std::shared_ptr<const Snapshot>> Vm::snapshot() { return impl_->snapshot(); }

Result<void> Vm::save(const std::string& path, const std::function<bool()>& cancelled) {
  return with_context(impl_->save(path, cancelled), "Save the machine to " + path);
}

Result<void> Vm::save_increment(const std::string& path, const std::string& base,
                                const std::function<bool()>& cancelled) {
  return with_context(impl_->save_increment(path, base, cancelled),
                      "Save the machine to " + path + " on " + base);
}

Result<void> Vm::write_core(const std::string& path, const std::function<bool()>& cancelled) {
  return with_context(impl_->write_core(path, cancelled),
                      "Write the guest to the core file " + path);
}

Result<std::unique_ptr<FrozenCore>> Vm::freeze_core() {
  return with_context(impl_->freeze_core(), "Freeze the guest's memory");
}

Result<void> Vm::reset_to(const std::shared_ptr<const Snapshot>& snapshot) {
  return impl_->reset_to(snapshot);
}

Result<PageList> Vm::used_pages() const {
  if (!impl_->machine->page_loader) {
    return fail(ErrorCode::kUnsupported,
                "The machine's memory does not come page by page: go on from a snapshot with "
                "SnapshotBoot::faulted");
  }
  return PageList(*impl_->origin, impl_->machine->page_loader->used());
}

Result<std::unique_ptr<Vm>> Vm::clone(const std::function<Result<void>(VmConfig&)>& equip) {
  VmConfig config = Snapshot::config(VMM_TRY(snapshot()));
  if (equip) VMM_TRY(equip(config));
  return create(std::move(config));
}

}  // namespace vmm
