#include "vmm/kvm/vcpu_stat.h"

#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <utility>
#include <vector>

namespace vmm::kvm {
namespace {

// More than any KVM has: of a description's name, and of descriptions.
constexpr std::size_t kMostName = 256, kMostStats = 1024;

// Of a description, as C lays it out: the name follows (ioctl_numbers.h says why).
constexpr std::size_t kHead = offsetof(kvm_stats_desc, bucket_size) + sizeof(__u32);
static_assert(kHead == 16);

bool read_at(const UniqueFd& fd, void* to, std::size_t size, std::uint64_t at) {
  return ::pread(fd.get(), to, size, static_cast<off_t>(at)) == static_cast<ssize_t>(size);
}

}  // namespace

Result<VcpuStat> VcpuStat::open(const VcpuFd& cpu, std::string_view name) {
  UniqueFd fd(::ioctl(cpu.fd(), KVM_GET_STATS_FD, nullptr));
  if (!fd) {
    return fail(ErrorCode::kUnsupported, "This host's KVM has no KVM_GET_STATS_FD: {}",
                std::strerror(errno));
  }
  kvm_stats_header header{};
  std::vector<std::byte> all;
  std::size_t size = 0;
  const bool sound = read_at(fd, &header, sizeof header, 0) && header.name_size <= kMostName &&
                     header.num_desc <= kMostStats;
  if (sound) {
    size = kHead + header.name_size;
    all.resize(size * header.num_desc);
  }
  if (!sound || !read_at(fd, all.data(), all.size(), header.desc_offset)) {
    return fail(ErrorCode::kUnsupported, "What KVM counts for vCPU {} cannot be read", cpu.id());
  }
  for (std::size_t at = 0; at < all.size(); at += size) {
    kvm_stats_desc description{};
    std::memcpy(&description, all.data() + at, kHead);
    const char* const text = reinterpret_cast<const char*>(all.data() + at + kHead);
    if (std::string_view(text, ::strnlen(text, header.name_size)) != name) continue;
    if (description.size != 1) break;
    return VcpuStat(std::move(fd), std::uint64_t{header.data_offset} + description.offset);
  }
  return fail(ErrorCode::kUnsupported, "This host's KVM does not count {}", name);
}

Result<std::uint64_t> VcpuStat::value() const {
  std::uint64_t value = 0;
  if (!read_at(fd_, &value, sizeof value, at_)) {
    return fail(ErrorCode::kIo, "KVM does not tell what it counts for a vCPU");
  }
  return value;
}

}  // namespace vmm::kvm
