// What every device has to satisfy, whatever it is.
//
// A Rig is a device with its collaborators, freshly powered on when constructed:
//
//   struct UartRig {
//     RecordingIrqPin irq;
//     Uart16550 device{"uart0", {.irq = IrqLine(&irq)}};
//     static constexpr std::array kWindows{Window{.size = 8, .widths = {1}}};
//     std::vector<const RecordingIrqPin*> pins() const { return {&irq}; }
//     void mutate();    // bring the state as far from power-on as it goes, an interrupt included
//   };
//   INSTANTIATE_TYPED_TEST_SUITE_P(Uart, DeviceConformance, UartRig);
//
// A rig whose collaborators have a state that the device looks at (a clock) has `void follow(const
// Rig& other)`, which brings them to where the other's are.
//
// kWindows holds all windows of the device with their device offsets; the bases do not matter. Each
// check is a function that says what it found, so that a broken device can be shown to fail it
// (device_conformance_test.cc). A device without state sets `static constexpr bool kStateless =
// true`; it must then save the same whatever happens to it.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "base/le.h"
#include "devices/bus.h"
#include "devices/device.h"
#include "devices/state_io.h"
#include "tests/support/fakes/recording_irq_pin.h"

namespace vmm::test {

using testing::AssertionFailure;
using testing::AssertionResult;
using testing::AssertionSuccess;

inline nlohmann::json saved(const Device& device) {
  StateWriter writer;
  device.save(writer);
  return writer.document();
}

inline bool restore_from(Device& device, const nlohmann::json& document) {
  return device.restore(StateReader(document)).has_value();
}

template <typename Rig>
constexpr bool is_stateless() {
  if constexpr (requires { Rig::kStateless; }) {
    return Rig::kStateless;
  } else {
    return false;
  }
}

template <typename Rig>
void follow(Rig& rig, const Rig& other) {
  if constexpr (requires { rig.follow(other); }) rig.follow(other);
}

template <typename Rig>
std::vector<bool> levels(const Rig& rig) {
  std::vector<bool> all;
  for (const RecordingIrqPin* pin : rig.pins()) all.push_back(pin->level());
  return all;
}

// One access that the bus would let through.
struct SampleAccess {
  std::uint64_t offset;
  std::size_t width;
};

template <typename Rig>
std::vector<SampleAccess> all_accesses() {
  std::vector<SampleAccess> all;
  for (const Window& window : Rig::kWindows) {
    for (const std::size_t width : {1U, 2U, 4U, 8U}) {
      if (!window.widths.accepts(width) || width > window.size) continue;
      for (std::uint64_t at = 0; at + width <= window.size; ++at) {
        all.push_back({window.offset + at, width});
      }
    }
  }
  return all;
}

inline std::vector<std::byte> read_bytes(Device& device, const SampleAccess& access) {
  std::vector<std::byte> data(access.width, std::byte{0xff});
  device.read({.offset = access.offset, .address = access.offset, .vcpu = VcpuId{0}}, data);
  return data;
}

inline void write_value(Device& device, const SampleAccess& access, std::uint64_t value) {
  std::vector<std::byte> data(access.width);
  store_le(data, value);
  device.write({.offset = access.offset, .address = access.offset, .vcpu = VcpuId{0}}, data);
}

// `count` reads and writes at random; the same for the same seed.
template <typename Rig>
void shake(Rig& rig, std::uint32_t seed, int count) {
  const std::vector<SampleAccess> accesses = all_accesses<Rig>();
  std::mt19937_64 random(seed);
  for (int i = 0; i < count; ++i) {
    const SampleAccess& access = accesses[random() % accesses.size()];
    if (random() % 2 == 0) {
      read_bytes(rig.device, access);
    } else {
      write_value(rig.device, access, random());
    }
  }
}

// A rig that got where it is by `seed`; 0 is mutate() alone.
template <typename Rig>
void bring_to(Rig& rig, std::uint32_t seed) {
  rig.mutate();
  if (seed != 0) shake(rig, seed, 200);
}

inline constexpr std::uint32_t kSeeds = 12;

template <typename Rig>
AssertionResult check_round_trip() {
  for (std::uint32_t seed = 0; seed < kSeeds; ++seed) {
    Rig from;
    bring_to(from, seed);
    const nlohmann::json document = saved(from.device);
    if (saved(from.device) != document) return AssertionFailure() << "save() changes what it saves";
    Rig to;
    follow(to, from);
    if (!restore_from(to.device, document)) {
      return AssertionFailure() << "own state refused: " << document.dump();
    }
    if (saved(to.device) != document) {
      return AssertionFailure() << "saved " << document.dump() << "\nrestored "
                                << saved(to.device).dump();
    }
    // What was restored behaves alike, too: a member outside of the state would show here.
    shake(from, seed + 1000, 100);
    shake(to, seed + 1000, 100);
    if (saved(from.device) != saved(to.device)) {
      return AssertionFailure() << "after restoring " << document.dump()
                                << " the same accesses lead elsewhere: "
                                << saved(from.device).dump() << " and " << saved(to.device).dump();
    }
  }
  return AssertionSuccess();
}

template <typename Rig>
AssertionResult check_mutation_is_saved() {
  const Rig fresh;
  Rig mutated;
  mutated.mutate();
  const bool same = saved(fresh.device) == saved(mutated.device);
  if (same == is_stateless<Rig>()) return AssertionSuccess();
  return AssertionFailure() << (same ? "mutate() left no trace in " : "a stateless device saved ")
                            << saved(mutated.device).dump();
}

template <typename Rig>
AssertionResult check_reset_is_power_on() {
  for (std::uint32_t seed = 0; seed < kSeeds; ++seed) {
    const Rig fresh;
    Rig rig;
    bring_to(rig, seed);
    follow(rig, fresh);
    rig.device.reset();
    if (saved(rig.device) != saved(fresh.device)) {
      return AssertionFailure() << "reset gives " << saved(rig.device).dump() << "\npower-on "
                                << saved(fresh.device).dump();
    }
    if (levels(rig) != levels(fresh)) return AssertionFailure() << "reset leaves a line asserted";
  }
  return AssertionSuccess();
}

// Whatever is read is defined by the device: what lay in the caller's buffer before never shows
// through the bus, and a twin in the same state reads the same.
template <typename Rig>
AssertionResult check_every_access_is_answered() {
  std::mt19937_64 random(1);
  for (const SampleAccess& access : all_accesses<Rig>()) {
    for (int round = 0; round < 8; ++round) {
      Rig rig;
      rig.mutate();
      write_value(rig.device, access, random());
      Rig twin;
      follow(twin, rig);
      if (!restore_from(twin.device, saved(rig.device))) {
        return AssertionFailure() << "own state refused: " << saved(rig.device).dump();
      }
      const std::vector<std::byte> first = read_bytes(rig.device, access);
      const std::vector<std::byte> second = read_bytes(twin.device, access);
      if (first != second) {
        return AssertionFailure() << "offset " << access.offset << ", width " << access.width
                                  << ": two devices in the same state read differently";
      }
    }
  }
  return AssertionSuccess();
}

// A borrowed device on a bus, for the length of a check.
class Borrowed final : public Device {
 public:
  explicit Borrowed(Device& device) : device_(device) {}
  std::string_view id() const noexcept override { return device_.id(); }
  void read(const IoAccess& access, std::span<std::byte> data) override {
    device_.read(access, data);
  }
  void write(const IoAccess& access, std::span<const std::byte> data) override {
    device_.write(access, data);
  }
  void reset() override { device_.reset(); }
  void save(StateWriter& writer) const override { device_.save(writer); }
  Result<void> restore(const StateReader& reader) override { return device_.restore(reader); }

 private:
  Device& device_;
};

template <typename Rig>
AssertionResult check_no_byte_is_left_unset() {
  std::mt19937_64 random(2);
  for (const SampleAccess& access : all_accesses<Rig>()) {
    Rig rig;
    rig.mutate();
    write_value(rig.device, access, random());
    Rig twin;
    follow(twin, rig);
    if (!restore_from(twin.device, saved(rig.device))) {
      return AssertionFailure() << "own state refused: " << saved(rig.device).dump();
    }
    Bus bus(BusKind::kMmio);
    const Window window{.base = 0x1000, .size = access.width, .offset = access.offset};
    if (!bus.insert(window, DeviceRef(std::make_unique<Borrowed>(twin.device)))) {
      return AssertionFailure() << "the bus refused the window";
    }
    BusCache cache(VcpuId{0});
    std::vector<std::byte> stale(access.width, std::byte{0x5a});
    bus.read(cache, 0x1000, stale);
    if (stale != read_bytes(rig.device, access)) {
      return AssertionFailure() << "offset " << access.offset << ", width " << access.width
                                << ": the answer depends on what was in the buffer";
    }
  }
  return AssertionSuccess();
}

// In both directions: a restored device raises what is due and drops what is not.
template <typename Rig>
AssertionResult check_lines_after_restore() {
  const Rig fresh;
  for (std::uint32_t seed = 0; seed < kSeeds; ++seed) {
    Rig from;
    bring_to(from, seed);
    Rig to;
    follow(to, from);
    if (!restore_from(to.device, saved(from.device)) || levels(to) != levels(from)) {
      return AssertionFailure() << "lines differ after restoring " << saved(from.device).dump();
    }
    if (!restore_from(to.device, saved(fresh.device)) || levels(to) != levels(fresh)) {
      return AssertionFailure() << "a line stays asserted after restoring the power-on state";
    }
  }
  return AssertionSuccess();
}

// Each place of a document, as JSON pointers.
inline void collect_places(const nlohmann::json& value, const nlohmann::json::json_pointer& at,
                           std::vector<nlohmann::json::json_pointer>& out) {
  out.push_back(at);
  if (value.is_object()) {
    for (const auto& [key, inner] : value.items()) collect_places(inner, at / key, out);
  } else if (value.is_array()) {
    for (std::size_t i = 0; i < value.size(); ++i) collect_places(value[i], at / i, out);
  }
}

// Documents that no version of the device ever saved, made from a good one.
template <typename Rig>
std::vector<nlohmann::json> bad_documents() {
  Rig rig;
  rig.mutate();
  const nlohmann::json good = saved(rig.device);
  std::vector<nlohmann::json> bad{nullptr, 1, "state", nlohmann::json::array(),
                                  nlohmann::json::object()};
  const auto with = [&](const nlohmann::json::json_pointer& at, nlohmann::json value) {
    nlohmann::json document = good;
    document[at] = std::move(value);
    bad.push_back(std::move(document));
  };
  with("/type"_json_pointer, "no such device");
  with("/type"_json_pointer, 7);
  with("/version"_json_pointer, good["version"].get<std::uint32_t>() + 1);
  with("/version"_json_pointer, 0);
  with("/version"_json_pointer, "1");
  with("/version"_json_pointer, 1.0);
  with("/state/one_field_too_many"_json_pointer, 1);
  std::vector<nlohmann::json::json_pointer> places;
  collect_places(good, nlohmann::json::json_pointer(), places);
  for (const auto& at : places) {
    if (at.empty()) continue;
    if (good[at.parent_pointer()].is_object()) {  // truncated: one field is missing
      nlohmann::json document = good;
      document[at.parent_pointer()].erase(at.back());
      bad.push_back(std::move(document));
    }
    const nlohmann::json& value = good[at];  // ill-typed
    with(at, value.is_string() ? nlohmann::json(1) : nlohmann::json("text"));
    with(at, 1.5);
    if (value.is_number()) {  // does not fit
      with(at, value.is_number_unsigned() && value.get<std::uint64_t>() > 0xffff'ffff
                   ? nlohmann::json(-1)
                   : nlohmann::json(1e300));
      with(at, false);
    }
  }
  return bad;
}

template <typename Rig>
AssertionResult check_bad_documents_change_nothing() {
  for (const nlohmann::json& document : bad_documents<Rig>()) {
    Rig rig;
    bring_to(rig, 1);
    const nlohmann::json before = saved(rig.device);
    const std::vector<bool> lines = levels(rig);
    if (restore_from(rig.device, document)) {
      return AssertionFailure() << "accepted: " << document.dump();
    }
    if (saved(rig.device) != before || levels(rig) != lines) {
      return AssertionFailure() << "changed by a document that it refused: " << document.dump();
    }
  }
  return AssertionSuccess();
}

// Well-formed documents with values of an attacker's choice: refused, or lived with.
template <typename Rig>
AssertionResult check_hostile_values_do_no_harm() {
  Rig model;
  model.mutate();
  const nlohmann::json good = saved(model.device);
  std::vector<nlohmann::json::json_pointer> places;
  collect_places(good["state"], "/state"_json_pointer, places);
  std::mt19937_64 random(3);
  for (int round = 0; round < 200; ++round) {
    nlohmann::json document = good;
    for (const auto& at : places) {
      nlohmann::json& value = document[at];
      if (!value.is_number() || random() % 2 == 0) continue;
      const std::uint64_t wide = random() >> (random() % 64);
      if (value.is_number_unsigned()) {
        value = random() % 2 == 0 ? wide : wide & 0xff;
      } else {
        value = static_cast<std::int64_t>(wide);
      }
    }
    Rig rig;
    if (!restore_from(rig.device, document)) continue;
    if (saved(rig.device) != document) {
      return AssertionFailure() << "accepted " << document.dump() << "\nbut saves "
                                << saved(rig.device).dump();
    }
    shake(rig, static_cast<std::uint32_t>(round), 100);
    Rig other;
    if (!restore_from(other.device, saved(rig.device))) {
      return AssertionFailure() << "refuses what it saved itself: " << saved(rig.device).dump();
    }
  }
  return AssertionSuccess();
}

template <typename Rig>
class DeviceConformance : public testing::Test {};
TYPED_TEST_SUITE_P(DeviceConformance);

TYPED_TEST_P(DeviceConformance, HasAnId) { EXPECT_NE(TypeParam().device.id(), ""); }
TYPED_TEST_P(DeviceConformance, SaveAndRestore_roundTrip) {
  EXPECT_TRUE(check_round_trip<TypeParam>());
}
TYPED_TEST_P(DeviceConformance, Mutation_isSaved) {
  EXPECT_TRUE(check_mutation_is_saved<TypeParam>());
}
TYPED_TEST_P(DeviceConformance, Reset_isPowerOn) {
  EXPECT_TRUE(check_reset_is_power_on<TypeParam>());
}
TYPED_TEST_P(DeviceConformance, EveryAccess_isAnswered) {
  EXPECT_TRUE(check_every_access_is_answered<TypeParam>());
}
TYPED_TEST_P(DeviceConformance, NoByte_isLeftUnset) {
  EXPECT_TRUE(check_no_byte_is_left_unset<TypeParam>());
}
TYPED_TEST_P(DeviceConformance, Lines_followRestore) {
  EXPECT_TRUE(check_lines_after_restore<TypeParam>());
}
TYPED_TEST_P(DeviceConformance, BadDocuments_changeNothing) {
  EXPECT_TRUE(check_bad_documents_change_nothing<TypeParam>());
}
TYPED_TEST_P(DeviceConformance, HostileValues_doNoHarm) {
  EXPECT_TRUE(check_hostile_values_do_no_harm<TypeParam>());
}
REGISTER_TYPED_TEST_SUITE_P(DeviceConformance, HasAnId, SaveAndRestore_roundTrip, Mutation_isSaved,
                            Reset_isPowerOn, EveryAccess_isAnswered, NoByte_isLeftUnset,
                            Lines_followRestore, BadDocuments_changeNothing,
                            HostileValues_doNoHarm);

}  // namespace vmm::test
