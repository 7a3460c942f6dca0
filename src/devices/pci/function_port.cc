#include "devices/pci/function_port.h"

#include <algorithm>
#include <utility>

#include "devices/pci/endpoint.h"

namespace vmm::pci {

void FunctionPort::watch(std::size_t bar, BarMap::OnMoved on_moved) {
  all_.at(bar).on_moved = std::move(on_moved);
}

void FunctionPort::bind(DeviceRef device) {
  for (Bar& bar : all_) {
    if (!bar.shape) continue;
    bar.id = bars_.add(device, *bar.shape, std::move(bar.on_moved));
    bars_.place(*bar.id, bar.wanted);
  }
  device_.emplace(std::move(device));
}

void FunctionPort::unbind() {
  for (Bar& bar : all_) {
    if (bar.id) bars_.remove(*bar.id);
    bar = {};
  }
  device_.reset();
}

void FunctionPort::prepare(bool addresses) {
  all_ = {};
  addresses_ = addresses;
}

std::uint64_t FunctionPort::add(std::size_t bar, const Window& shape) {
  all_.at(bar).shape = shape;
  return addresses_ ? bars_.assign(shape.size).value_or(0) : 0;
}

void FunctionPort::place(std::size_t bar, std::optional<std::uint64_t> address) {
  Bar& which = all_.at(bar);
  which.wanted = address;
  if (which.id) bars_.place(*which.id, address);
}

void FunctionPort::read_config(std::uint64_t offset, std::span<std::byte> data) {
  if (!device_) return;
  device_->with([&](Device& device) {
    device.read({.offset = Endpoint::kConfig + offset, .address = offset, .vcpu = {}}, data);
  });
}

void FunctionPort::write_config(std::uint64_t offset, std::span<const std::byte> data) {
  if (!device_) return;
  device_->with([&](Device& device) {
    device.write({.offset = Endpoint::kConfig + offset, .address = offset, .vcpu = {}}, data);
  });
}

}  // namespace vmm::pci
