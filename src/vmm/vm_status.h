// What a machine and its virtio devices are at, as values for people and programs.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "devices/mac_address.h"

namespace vmm {

struct BalloonStatus {
  std::uint64_t target = 0;          // bytes that it is to have
  std::uint64_t actual = 0;          // bytes that it has, by the guest's account
  std::uint64_t inflated_bytes = 0;  // given back to the host from it, since the start
  std::uint64_t reported_bytes = 0;  // given back because the guest reported them free
  // What the guest last told, by name ("free", "available"): bytes, or counts of events.
  std::map<std::string, std::uint64_t> guest = {};
};

// Memory that comes and goes while the guest runs.
struct MemoryStatus {
  std::uint64_t requested = 0;  // bytes that the guest is to have, those it started with included
  std::uint64_t plugged = 0;    // bytes that it has, counted likewise
  std::uint64_t most = 0;       // bytes that it may have, counted likewise
  std::uint64_t block = 0;      // bytes; the unit in which memory is added
};

struct DiskStatus {
  std::string name;            // "disk0": the first of the configuration
  std::uint64_t size = 0;      // bytes
  std::uint64_t requests = 0;  // answered since the start
  std::uint64_t errors = 0;    // of these, not with success
  // The I/O thread that serves each queue; 0 is the event loop's.
  std::vector<std::uint32_t> queue_threads = {};
};

struct NetStatus {
  std::string name;  // "net0": the first of the configuration
  MacAddress mac;
  bool link = true;
  std::uint64_t sent = 0, received = 0;           // frames, as the guest sees it
  std::uint64_t dropped = 0;                      // either way
  std::vector<std::uint32_t> queue_threads = {};  // as a disk's, the control queue included
};

// A device whose requests another process answers.
struct RemoteStatus {
  std::string name;                    // "disk1", "net0", "fs0"
  std::string place;                   // of the back-end: its socket, or the shared directory
  std::optional<bool> connected = {};  // nothing while no driver is at work
  std::uint64_t requests = 0;          // answered since the start
  std::uint64_t errors = 0;            // of these, by us because the back-end was gone
  std::uint64_t losses = 0;            // how often it went
};

struct WatchdogStatus {
  bool counting = false;          // the guest has started it
  std::uint64_t expirations = 0;  // times that it was not fed, since the start
};

struct VmStatus {
  bool running = false;  // a Vm::run() is active
  std::uint32_t cpus = 0;
  std::uint64_t memory = 0;          // bytes of RAM that the guest started with
  bool asleep = false;               // ACPI S3
  std::uint64_t broken_devices = 0;  // times that a virtio device wanted a reset of its driver
  std::optional<BalloonStatus> balloon = {};
  std::optional<MemoryStatus> plugged = {};  // of a machine whose memory can grow
  std::vector<DiskStatus> disks = {};
  std::vector<NetStatus> nets = {};
  std::vector<RemoteStatus> remotes = {};
  std::optional<WatchdogStatus> watchdog = {};
};

}  // namespace vmm
