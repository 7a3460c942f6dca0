// What a Vm passes on to its devices.
#include <utility>

#include "vmm/live_devices.h"
#include "vmm/vm_impl.h"

namespace vmm {

std::size_t Vm::push_serial_input(std::span<const std::byte> bytes) {
  return impl_->machine->com1->with([&](Uart16550& uart) { return uart.push_input(bytes); });
}

const EventFd& Vm::serial_input_space() const { return impl_->machine->serial_input_space; }

void Vm::serial_output_ready() {
  impl_->machine->com1->with([](Uart16550& uart) { uart.poke(); });
}

std::size_t Vm::push_port_input(std::size_t port, std::span<const std::byte> bytes) {
  return vmm::push_port_input(*impl_->machine, port, bytes);
}

const EventFd* Vm::port_input_space(std::size_t port) const {
  const auto& ports = impl_->machine->console_ports;
  return port < ports.size() ? &ports[port]->input_space : nullptr;
}

void Vm::port_output_ready(std::size_t port) { vmm::port_output_ready(*impl_->machine, port); }

void Vm::set_port_size(std::size_t port, ConsoleSize size) {
  vmm::set_port_size(*impl_->machine, port, size);
}

void Vm::set_port_open(std::size_t port, bool open) {
  vmm::set_port_open(*impl_->machine, port, open);
}

VmStatus Vm::status() const {
  VmStatus status{.running = impl_->active,
                  .cpus = static_cast<std::uint32_t>(impl_->vcpus.size()),
                  .memory = impl_->machine->memory.size(),
                  .asleep = impl_->machine->asleep};
  add_device_status(*impl_->machine, status);
  return status;
}

void Vm::press_power_button() {
  impl_->machine->acpi_pm->with([](AcpiPm& pm) { pm.press_power_button(); });
}

Result<void> Vm::set_balloon(std::uint64_t bytes) {
  return vmm::set_balloon(*impl_->machine, bytes);
}

Result<void> Vm::set_memory(std::uint64_t bytes) { return vmm::set_memory(*impl_->machine, bytes); }

Result<std::uint64_t> Vm::refresh_disk(std::string_view name) {
  return vmm::refresh_disk(*impl_->machine, name);
}

Result<void> Vm::limit_disk(std::string_view name, const BlockRates& rates) {
  return vmm::limit_disk(*impl_->machine, name, rates);
}

Result<void> Vm::set_link(std::string_view name, bool up) {
  return vmm::set_link(*impl_->machine, name, up);
}

Result<std::string> Vm::add_disk(VirtioDiskConfig disk) {
  return vmm::add_device(*impl_->machine, std::move(disk));
}

Result<std::string> Vm::add_net(VirtioNetConfig net) {
  return vmm::add_device(*impl_->machine, std::move(net));
}

std::future<Result<void>> Vm::remove_disk(std::string_view name, const Unplug& how) {
  return vmm::remove_disk(*impl_->machine, name, how);
}

std::future<Result<void>> Vm::remove_net(std::string_view name, const Unplug& how) {
  return vmm::remove_net(*impl_->machine, name, how);
}

}  // namespace vmm
