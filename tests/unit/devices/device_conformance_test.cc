// The conformance suite itself: that a sound device passes each check, and that for each check
// there is a way of being broken which it finds.
#include "tests/support/device_conformance.h"

#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>

#include "tests/support/device_access.h"

namespace vmm::test {
namespace {

enum class Flaw {
  kNone,
  kForgetsAFieldOnSave,     // it is not in the field list
  kForgetsAFieldOnReset,    // part of the state survives
  kLineSurvivesReset,       // the state is right, the line is not driven
  kLineNotRestored,         // likewise after restore
  kHiddenState,             // a member outside of the state decides what a read gives
  kRestoresBeforeItChecks,  // a refused document has left traces
  kAcceptsAnything,         // documents are not checked
  kSaveChanges,             // save() is not an observation
  kInventsOnRestore,        // what was accepted is not what is saved next
};

// A register, a latch with an interrupt, and a flaw.
template <Flaw kFlaw>
class Toy final : public Device {
 public:
  struct State {
    static constexpr StateId kId{"toy", 1};
    std::uint8_t value = 0;
    bool pending = false;
    std::uint8_t forgotten = 0;
    static void fields(auto&& f) {
      f("value", &State::value);
      f("pending", &State::pending);
      if constexpr (kFlaw != Flaw::kForgetsAFieldOnSave) f("forgotten", &State::forgotten);
    }
  };
  explicit Toy(IrqLine irq) : irq_(irq) {}

  std::string_view id() const noexcept override { return "toy"; }
  void read(const IoAccess& access, std::span<std::byte> data) override {
    if (access.offset == 0) {
      data[0] = std::byte{s_.value};
      if (kFlaw == Flaw::kHiddenState) data[0] = static_cast<std::byte>(hidden_);
    } else {
      data[0] = std::byte{s_.forgotten};
    }
  }
  void write(const IoAccess& access, std::span<const std::byte> data) override {
    const auto value = std::to_integer<std::uint8_t>(data[0]);
    (access.offset == 0 ? s_.value : s_.forgotten) = value;
    hidden_ = value;
    s_.pending = true;
    settle();
  }
  void reset() override {
    const State before = s_;
    s_ = State{};
    if (kFlaw == Flaw::kForgetsAFieldOnReset) s_.forgotten = before.forgotten;
    if (kFlaw != Flaw::kLineSurvivesReset) settle();
  }
  void save(StateWriter& writer) const override {
    writer.put(s_);
    if (kFlaw == Flaw::kSaveChanges) ++s_.value;
  }
  Result<void> restore(const StateReader& reader) override {
    if (kFlaw == Flaw::kRestoresBeforeItChecks) s_ = State{};
    auto state = reader.get<State>();
    if (kFlaw == Flaw::kAcceptsAnything && !state) return {};
    if (!state) return tl::unexpected<Error>(state.error());
    s_ = *state;
    if (kFlaw == Flaw::kInventsOnRestore) s_.value &= 0x0f;
    if (kFlaw != Flaw::kLineNotRestored) settle();
    return {};
  }

 private:
  void settle() { irq_.set_level(s_.pending); }
  mutable State s_;
  std::uint8_t hidden_ = 0;
  IrqLine irq_;
};

template <Flaw kFlaw>
struct ToyRig {
  RecordingIrqPin irq;
  Toy<kFlaw> device{IrqLine(&irq)};
  static constexpr std::array kWindows{Window{.size = 2, .widths = {1}}};
  std::vector<const RecordingIrqPin*> pins() const { return {&irq}; }
  void mutate() {
    write8(device, 1, 0x5a);
    write8(device, 0, 0xa5);
  }
};

struct IdleRig : ToyRig<Flaw::kNone> {
  void mutate() {}
};
struct FalselyStatelessRig : ToyRig<Flaw::kNone> {
  static constexpr bool kStateless = true;
};

using SoundRig = ToyRig<Flaw::kNone>;
INSTANTIATE_TYPED_TEST_SUITE_P(SoundToy, DeviceConformance, SoundRig);

TEST(DeviceConformance, AFieldThatIsNotSaved_isFound) {
  EXPECT_FALSE(check_every_access_is_answered<ToyRig<Flaw::kForgetsAFieldOnSave>>());
}
TEST(DeviceConformance, AMutationWithoutATrace_isFound) {
  EXPECT_FALSE(check_mutation_is_saved<IdleRig>());
  EXPECT_FALSE(check_mutation_is_saved<FalselyStatelessRig>());
}
TEST(DeviceConformance, AFieldThatSurvivesReset_isFound) {
  EXPECT_FALSE(check_reset_is_power_on<ToyRig<Flaw::kForgetsAFieldOnReset>>());
}
TEST(DeviceConformance, ALineThatSurvivesReset_isFound) {
  EXPECT_FALSE(check_reset_is_power_on<ToyRig<Flaw::kLineSurvivesReset>>());
}
TEST(DeviceConformance, ALineThatIsNotRestored_isFound) {
  EXPECT_FALSE(check_lines_after_restore<ToyRig<Flaw::kLineNotRestored>>());
}
TEST(DeviceConformance, StateOutsideOfTheState_isFound) {
  EXPECT_FALSE(check_every_access_is_answered<ToyRig<Flaw::kHiddenState>>());
  EXPECT_FALSE(check_no_byte_is_left_unset<ToyRig<Flaw::kHiddenState>>());
}
TEST(DeviceConformance, TracesOfARefusedDocument_areFound) {
  EXPECT_FALSE(check_bad_documents_change_nothing<ToyRig<Flaw::kRestoresBeforeItChecks>>());
}
TEST(DeviceConformance, ADeviceThatTakesAnything_isFound) {
  EXPECT_FALSE(check_bad_documents_change_nothing<ToyRig<Flaw::kAcceptsAnything>>());
}
TEST(DeviceConformance, ASaveThatChanges_isFound) {
  EXPECT_FALSE(check_round_trip<ToyRig<Flaw::kSaveChanges>>());
}
TEST(DeviceConformance, AnInventedValue_isFound) {
  EXPECT_FALSE(check_round_trip<ToyRig<Flaw::kInventsOnRestore>>());
  EXPECT_FALSE(check_hostile_values_do_no_harm<ToyRig<Flaw::kInventsOnRestore>>());
}

// The checks fail the test that they stand in.
TEST(DeviceConformance, AFailedCheck_failsItsTest) {
  EXPECT_NONFATAL_FAILURE(EXPECT_TRUE(check_reset_is_power_on<ToyRig<Flaw::kLineSurvivesReset>>()),
                          "reset leaves a line asserted");
}

}  // namespace
}  // namespace vmm::test
