// What the reference implementation makes of our tables: its disassembler and compiler, and its
// interpreter. VMM_IASL and VMM_ACPIEXEC are their paths, or empty where they are not installed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/unit/x86/acpi_walk.h"
#include "tests/unit/x86/test_memory.h"
#include "vmm/x86/acpi.h"
#include "vmm/x86/virtio_mmio.h"

namespace vmm::x86 {
namespace {

using testing::HasSubstr;
using testing::Not;

struct Outcome {
  int status = -1;
  std::string output;
};

std::string read_text(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

class AcpiIasl : public testing::Test {
 protected:
  void SetUp() override {
    if (std::string(VMM_IASL).empty()) GTEST_SKIP() << "iasl (package acpica-tools) is missing";
    std::string pattern = (std::filesystem::temp_directory_path() / "vmm-acpi-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override {
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }

  Outcome iasl(const std::string& arguments) const { return run(VMM_IASL, arguments); }

  Outcome run(const std::string& program, const std::string& arguments) const {
    const std::string command =
        "cd '" + folder_.string() + "' && '" + program + "' " + arguments + " 2>&1 </dev/null";
    Outcome run;
    std::FILE* const pipe = popen(command.c_str(), "r");
    if (pipe == nullptr) return run;
    char text[4096];
    while (const std::size_t n = std::fread(text, 1, sizeof(text), pipe)) {
      run.output.append(text, n);
    }
    const int status = pclose(pipe);
    run.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return run;
  }

  // Writes the tables, disassembles each, compiles it again, and returns the DSDT's source.
  std::string judge(const AcpiConfig& config) const {
    const GuestMemory memory = test_memory();
    auto tables = walk_acpi(memory, write_acpi_tables(memory, config).value());
    tables.erase("RSDP");  // not a table with a header: iasl does not know it in a file
    for (const auto& [name, bytes] : tables) {
      SCOPED_TRACE(name);
      std::ofstream(folder_ / (name + ".dat"), std::ios::binary)
          .write(reinterpret_cast<const char*>(bytes.data()),
                 static_cast<std::streamsize>(bytes.size()));
      const Outcome apart = iasl("-d " + name + ".dat");
      EXPECT_EQ(apart.status, 0) << apart.output;
      EXPECT_THAT(apart.output, Not(HasSubstr("Error")));
      EXPECT_THAT(apart.output, Not(HasSubstr("Warning")));
      EXPECT_THAT(read_text(folder_ / (name + ".dsl")), Not(HasSubstr("Invalid")));
      const Outcome together = iasl(name + ".dsl");
      EXPECT_EQ(together.status, 0) << together.output;
      EXPECT_THAT(together.output, HasSubstr("0 Errors, 0 Warnings"));
    }
    return read_text(folder_ / "DSDT.dsl");
  }

  // What a method returns, as the interpreter prints it. After judge().
  std::string evaluate(const std::string& call) const {
    return run(VMM_ACPIEXEC, "-b 'evaluate " + call + "' DSDT.dat").output;
  }

 private:
  std::filesystem::path folder_;
};

TEST_F(AcpiIasl, DefaultTables) {
  const std::string dsdt = judge({});
  EXPECT_THAT(dsdt, HasSubstr("Name (\\_S3, Package (0x04)"));
  EXPECT_THAT(dsdt, HasSubstr("Name (\\_S5, Package (0x04)"));
  EXPECT_THAT(dsdt, HasSubstr("Device (COM1)"));
  EXPECT_THAT(dsdt, HasSubstr("EisaId (\"PNP0501\")"));
  EXPECT_THAT(dsdt, HasSubstr("0x03F8,             // Range Minimum"));
  EXPECT_THAT(dsdt, HasSubstr("{4}"));
  EXPECT_THAT(dsdt, HasSubstr("EisaId (\"PNP0B00\")"));
  EXPECT_THAT(dsdt, HasSubstr("EisaId (\"PNP0303\")"));
  EXPECT_THAT(dsdt, Not(HasSubstr("PNP0F13")));
  EXPECT_THAT(dsdt, HasSubstr("\"QEMU0001\""));
  EXPECT_THAT(dsdt, HasSubstr("0x0505,"));
}

TEST_F(AcpiIasl, HostBridge_grantsWhatItHas) {
  if (std::string(VMM_ACPIEXEC).empty()) GTEST_SKIP() << "acpiexec (acpica-tools) is missing";
  judge({.pci = AcpiPciRoot{kPciConfig, kPciMemory, {}}});
  const std::string call = "\\_SB.PCI0._OSC ";
  const std::string bridge = "(5B 4D DB 33 F7 1F 1C 40 96 57 74 41 C0 3D D7 66)";
  const std::string stranger = "(5C 4D DB 33 F7 1F 1C 40 96 57 74 41 C0 3D D7 66)";
  // A query for everything: the capability structures alone, and that some were masked.
  EXPECT_THAT(evaluate(call + bridge + " 1 3 (01 00 00 00 1F 00 00 00 3F 00 00 00)"),
              HasSubstr("0000: 11 00 00 00 1F 00 00 00 10 00 00 00"));
  EXPECT_THAT(evaluate(call + bridge + " 1 3 (00 00 00 00 1F 00 00 00 10 00 00 00)"),
              HasSubstr("0000: 00 00 00 00 1F 00 00 00 10 00 00 00"));
  EXPECT_THAT(evaluate(call + bridge + " 2 3 (00 00 00 00 1F 00 00 00 00 00 00 00)"),
              HasSubstr("0000: 08 00 00 00 1F 00 00 00 00 00 00 00"));
  EXPECT_THAT(evaluate(call + stranger + " 1 3 (00 00 00 00 1F 00 00 00 1F 00 00 00)"),
              HasSubstr("0000: 04 00 00 00 1F 00 00 00 1F 00 00 00"));
}

// Where INTA# of device 2 leads, for each of the two kinds of controllers.
TEST_F(AcpiIasl, InterruptRouting_followsTheControllersInUse) {
  if (std::string(VMM_ACPIEXEC).empty()) GTEST_SKIP() << "acpiexec (acpica-tools) is missing";
  judge({.pci = AcpiPciRoot{kPciConfig, kPciMemory, {{.device = 2, .gsi = 18, .isa_irq = 11}}}});
  constexpr const char* kDevice = "[Integer] = 000000000002FFFF";  // any function of it
  constexpr const char* kGsi = "[Integer] = 0000000000000012";
  constexpr const char* kIsaIrq = "[Integer] = 000000000000000B";
  const std::string by_pic = evaluate("\\_PIC 0;evaluate \\_SB.PCI0._PRT");
  EXPECT_THAT(by_pic, HasSubstr(kDevice));
  EXPECT_THAT(by_pic, HasSubstr(kIsaIrq));
  EXPECT_THAT(by_pic, Not(HasSubstr(kGsi)));
  const std::string by_apic = evaluate("\\_PIC 1;evaluate \\_SB.PCI0._PRT");
  EXPECT_THAT(by_apic, HasSubstr(kDevice));
  EXPECT_THAT(by_apic, HasSubstr(kGsi));
  EXPECT_THAT(by_apic, Not(HasSubstr(kIsaIrq)));
}

TEST_F(AcpiIasl, GenerationId_isADeviceAndAnEvent) {
  const std::string dsdt =
      judge({.generation_id = AcpiGenerationId{.address = Gpa(0x1'000e'f800), .gpe = 2}});
  EXPECT_THAT(dsdt, HasSubstr("Device (VGEN)"));
  EXPECT_THAT(dsdt, HasSubstr("\"VMGENCTR\")  // _CID"));
  EXPECT_THAT(dsdt, HasSubstr("Method (_E02"));
  EXPECT_THAT(dsdt, HasSubstr("Notify (\\_SB.VGEN, 0x80)"));
  EXPECT_THAT(evaluate("\\_SB.VGEN.ADDR"), HasSubstr("00000000000EF800"));
}

TEST_F(AcpiIasl, HotPlugSlots_haveMethodsThatRun) {
  AcpiPciRoot root{kPciConfig, kPciMemory, {}};
  root.hotplug = AcpiPciHotplug{.slots = 0x8000'0022};  // 1, 5 and 31
  const std::string dsdt = judge({.pci = root});
  EXPECT_THAT(dsdt, HasSubstr("OperationRegion (PHPR, SystemIO, 0xAE00, 0x0C)"));
  EXPECT_THAT(dsdt, HasSubstr("Device (S01)"));
  EXPECT_THAT(dsdt, HasSubstr("Device (S05)"));
  EXPECT_THAT(dsdt, HasSubstr("Device (S1F)"));
  EXPECT_THAT(dsdt, Not(HasSubstr("Device (S02)")));
  EXPECT_THAT(dsdt, HasSubstr("0x001F0000)  // _ADR"));
  EXPECT_THAT(dsdt, HasSubstr("Notify (\\_SB.PCI0.S1F, 0x03)"));
  if (std::string(VMM_ACPIEXEC).empty()) GTEST_SKIP() << "acpiexec (acpica-tools) is missing";
  EXPECT_THAT(evaluate("\\_SB.PCI0.S05._SUN"), HasSubstr("0000000000000005"));
  EXPECT_THAT(evaluate("\\_SB.PCI0.S1F._EJ0 1"), Not(HasSubstr("AE_")));
  EXPECT_THAT(evaluate("\\_GPE._L01"), Not(HasSubstr("AE_")));
}

TEST_F(AcpiIasl, AMachineWithNothing) {
  const std::string dsdt = judge({.interrupt_controllers = false,
                                  .serial_ports = {},
                                  .rtc = false,
                                  .keyboard_controller = false,
                                  .pvpanic_port = std::nullopt});
  EXPECT_THAT(dsdt, Not(HasSubstr("Device (")));
  EXPECT_THAT(dsdt, HasSubstr("_S5"));
}

TEST_F(AcpiIasl, AMachineWithEverything) {
  const aml::Term extra = aml::device(
      "VR00",
      {aml::name("_HID", aml::string("LNRO0005")), aml::name("_UID", aml::integer(0)),
       aml::name("_CCA", aml::integer(1)),
       aml::name("_CRS", aml::resource_template({aml::memory32(0xd000'0000, 0x200),
                                                 aml::interrupt(16, aml::Trigger::kEdge,
                                                                aml::Polarity::kActiveHigh)})),
       aml::method("_STA", 0, {aml::return_value(aml::integer(0xf))})});
  const std::string dsdt = judge({.cpus = 300,
                                  .hpet = true,
                                  .serial_ports = {{}, {.name = "COM2", .port = 0x2f8, .irq = 3}},
                                  .aux_port = true,
                                  .fw_cfg_port = 0x510,
                                  .pci = AcpiPciRoot{kPciConfig,
                                                     kPciMemory,
                                                     {{.device = 1, .gsi = 17, .isa_irq = 11},
                                                      {.device = 2, .gsi = 18, .isa_irq = 10}}},
                                  .devices = {extra, virtio_mmio_aml(virtio_mmio_slot(1), 1)}});
  EXPECT_THAT(dsdt, HasSubstr("Device (COM2)"));
  EXPECT_THAT(dsdt, HasSubstr("PNP0F13"));
  EXPECT_THAT(dsdt, HasSubstr("\"QEMU0002\""));
  EXPECT_THAT(dsdt, HasSubstr("EisaId (\"PNP0A08\")"));
  EXPECT_THAT(dsdt, HasSubstr("WordBusNumber (ResourceProducer"));
  EXPECT_THAT(dsdt, HasSubstr("WordIO (ResourceProducer"));
  EXPECT_THAT(dsdt, HasSubstr("DWordMemory (ResourceProducer"));
  EXPECT_THAT(dsdt, HasSubstr("Method (_PIC, 1, NotSerialized)"));
  EXPECT_THAT(dsdt, HasSubstr("PICM = Arg0"));
  EXPECT_THAT(dsdt, HasSubstr("Method (_PRT, 0, NotSerialized)"));
  EXPECT_THAT(dsdt, HasSubstr("If (PICM)"));
  EXPECT_THAT(dsdt, HasSubstr("Method (_OSC, 4, Serialized)"));
  EXPECT_THAT(dsdt, HasSubstr("ToUUID (\"33db4d5b-1ff7-401c-9657-7441c03dd766\")"));
  EXPECT_THAT(dsdt, HasSubstr("CreateDWordField (Arg3, Zero, CDW1)"));
  EXPECT_THAT(dsdt, HasSubstr("CreateDWordField (Arg3, 0x08, CDW3)"));
  EXPECT_THAT(dsdt, HasSubstr("Local0 = (CDW3 & 0x10)"));
  EXPECT_THAT(dsdt, HasSubstr("0x0002FFFF"));
  EXPECT_THAT(dsdt, HasSubstr("EisaId (\"PNP0C02\")"));
  EXPECT_THAT(dsdt, HasSubstr("Method (_STA, 0, NotSerialized)"));
  EXPECT_THAT(dsdt, HasSubstr("0xD0000000,"));
  EXPECT_THAT(dsdt, HasSubstr("Edge, ActiveHigh, Exclusive"));
  EXPECT_THAT(dsdt, HasSubstr("Device (VR01)"));
  EXPECT_THAT(dsdt, HasSubstr("Level, ActiveHigh, Shared"));
}

}  // namespace
}  // namespace vmm::x86
