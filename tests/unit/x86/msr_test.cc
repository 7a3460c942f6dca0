#include "vmm/x86/msr.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vmm::x86 {
namespace {

using testing::UnorderedElementsAre;

TEST(Msr, BootListTurnsOnFastStringsAndWriteBackMemory) {
  EXPECT_THAT(boot_msrs(), UnorderedElementsAre(MsrValue{0x1a0, 0x1801}, MsrValue{0x2ff, 0x806},
                                                MsrValue{0xc0010015, 0x1000000},
                                                MsrValue{0x277, 0x0007040600070406}));
}

}  // namespace
}  // namespace vmm::x86
