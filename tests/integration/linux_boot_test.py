"""Linux to user space with a plain command line, on one and on two CPUs, with the interrupt controllers in KVM and
here: one boot, many checks."""
import os
import pathlib
import re
import tempfile
import time
import unittest

from guest import Machine, make_initramfs, requirements

MEMORY_MIB = 256

# Each section begins with a line that nothing else prints.
SCRIPT = """\
section() { echo "=== $1"; }
section cmdline;     cat /proc/cmdline
section uname;       uname -a
section cpuinfo;     cat /proc/cpuinfo
section meminfo;     cat /proc/meminfo
section clocksource; cat /sys/devices/system/clocksource/clocksource0/current_clocksource
section rtc;         cat /sys/class/rtc/rtc0/since_epoch
section acpi;        ls /sys/bus/acpi/devices
section arithmetic;  awk 'BEGIN { printf "%.12f\\n", 355 / 113 }'
section digest;      printf abc | sha256sum
section processes;   for i in 1 2 3 4; do (echo "child $i") & done; wait
section pipe;        yes | head -n 20000 | wc -l
section sleep;       read -r a rest </proc/uptime; sleep 1; read -r b rest </proc/uptime; echo "$a $b"
section interrupts;  cat /proc/interrupts
"""
# More than a minute by the guest's clock, which the test compares with the host's.
CLOCK_SCRIPT = """\
section clock;       i=0; while [ $i -le 32 ]; do read -r a rest </proc/uptime; echo "tick $a"; sleep 2; i=$((i + 1)); done
"""
END_SCRIPT = """\
section end
"""


class LinuxBoot:
    """The checks; the classes below say on how many CPUs, and who plays the interrupt controllers."""

    cpus = 1
    irqchip = "kernel"
    script = SCRIPT + END_SCRIPT

    @classmethod
    def setUpClass(cls):
        kernel = requirements()
        with tempfile.TemporaryDirectory() as folder:
            script = pathlib.Path(folder) / "script"
            script.write_text(cls.script, encoding="utf-8")
            initramfs = make_initramfs(folder, "--script", script)
            arguments = ["--kernel", kernel, "--initrd", str(initramfs), "--mem", f"{MEMORY_MIB}M"]
            arguments += ["--irqchip", cls.irqchip, "--cpus", str(cls.cpus), "--cmdline", "vmm.test=a-mark"]
            with Machine(arguments) as machine:
                machine.close_input()
                cls.status = machine.wait_for_end()
                cls.text = machine.text.replace("\r", "")
                cls.stderr = machine.stderr()
                # The guest's clock and ours, in seconds, whenever the guest has said what time it is.
                cls.ticks = [(float(tick[1]), machine.arrival(tick.end()))
                             for tick in re.finditer(r"tick (\d+\.\d+)\r?\n", machine.text)]
        cls.sections = {}
        for part in re.split(r"^=== ", cls.text, flags=re.MULTILINE)[1:]:
            name, _, body = part.partition("\n")
            # Kernel messages may come between any two lines.
            cls.sections[name] = re.sub(r"^\[ *\d+\.\d+\] .*\n", "", body, flags=re.MULTILINE)
        cls.kernel_said = "\n".join(re.findall(r"^\[ *\d+\.\d+\] .*$", cls.text, re.MULTILINE))

    def assert_nowhere(self, pattern, text):
        """Shows the lines that match, not the whole boot."""
        lines = [line for line in text.splitlines() if re.search(pattern, line)]
        self.assertFalse(lines, f"{pattern!r} was found")

    def test_powers_off_with_status_0(self):
        self.assertEqual(self.status, 0, self.stderr)
        self.assertIn("end", self.sections)

    def test_command_line_is_the_default_and_ours(self):
        words = self.sections["cmdline"].split()
        self.assertIn("console=ttyS0", words)
        self.assertEqual(words[-1], "vmm.test=a-mark")

    def test_command_line_avoids_no_instruction(self):
        for word in self.sections["cmdline"].split():
            self.assertNotRegex(word, r"^(noxsave|clearcpuid|nosmap|nosmep|nopti|noapic|nolapic|acpi=off)")

    def test_kernel_names_itself(self):
        self.assertRegex(self.sections["uname"], r"^Linux \S+ 6\.1\.\S+ .*x86_64")

    def test_all_cpus_are_there(self):
        processors = re.findall(r"^processor\s*: (\d+)$", self.sections["cpuinfo"], re.MULTILINE)
        self.assertEqual(processors, [str(i) for i in range(self.cpus)])
        brought_up = re.search(r"smp: Brought up 1 node, (\d+) CPU", self.kernel_said)
        self.assertEqual(brought_up and brought_up[1], str(self.cpus))

    def test_cpus_know_that_they_are_virtual(self):
        for flags in re.findall(r"^flags\s*: (.*)$", self.sections["cpuinfo"], re.MULTILINE):
            for flag in ("hypervisor", "lm", "tsc", "apic", "fxsr"):
                self.assertIn(flag, flags.split())

    def test_topology_is_one_package_of_cores(self):
        info = self.sections["cpuinfo"]
        packages = set(re.findall(r"^physical id\s*: (\d+)$", info, re.MULTILINE))
        cores = set(re.findall(r"^core id\s*: (\d+)$", info, re.MULTILINE))
        self.assertEqual((len(packages), len(cores)), (1, self.cpus))

    def test_memory_is_what_was_asked_for(self):
        total = int(re.search(r"^MemTotal:\s+(\d+) kB$", self.sections["meminfo"], re.MULTILINE)[1])
        self.assertLessEqual(total, MEMORY_MIB * 1024)
        self.assertGreater(total, MEMORY_MIB * 1024 * 8 // 10)  # the kernel keeps some for itself

    def test_serial_line_interrupts(self):
        self.assertGreater(sum(self.counts("ttyS0")), 0)

    def test_timer_interrupts_reach_every_cpu(self):
        self.assertTrue(all(count > 0 for count in self.counts("Local timer interrupts")))

    def test_nothing_spurious(self):
        self.assertEqual(sum(self.counts("ERR:")), 0)
        self.assertEqual(sum(self.counts("MIS:")), 0)
        # A keyboard's answer that comes after the driver's patience has ended is "spurious", too: on a busy host it may.
        self.assert_nowhere(r"nobody cared|[Ss]purious (?!ACK|NAK)", self.kernel_said)

    def counts(self, what):
        line = next(line for line in self.sections["interrupts"].splitlines() if what in line)
        words = line.split(":", 1)[1].split()
        return [int(word) for word in words[: self.cpus] if word.isdigit()]

    def test_clock_source_is_fast(self):
        self.assertIn(self.sections["clocksource"].strip(), ("kvm-clock", "tsc"))

    def test_real_time_clock_shows_the_time(self):
        self.assertAlmostEqual(int(self.sections["rtc"]), time.time(), delta=24 * 3600)

    def test_sleep_sleeps(self):
        before, after = map(float, self.sections["sleep"].split())
        self.assertGreaterEqual(after - before, 1)

    def test_acpi_names_the_serial_line_and_the_panic_device(self):
        devices = self.sections["acpi"]
        self.assertRegex(devices, r"PNP0501:00")
        self.assertRegex(devices, r"QEMU0001:00")
        self.assert_nowhere(r"ACPI.*(Error|Warning)", self.kernel_said)

    def test_programs_compute(self):
        self.assertEqual(self.sections["arithmetic"].strip(), "3.141592920354")
        self.assertIn(
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", self.sections["digest"]
        )

    def test_processes_and_pipes_work(self):
        self.assertEqual(sorted(self.sections["processes"].split("\n"))[1:], [f"child {i}" for i in (1, 2, 3, 4)])
        self.assertEqual(self.sections["pipe"].strip(), "20000")

    def test_kernel_has_no_complaint(self):
        for complaint in (r"BUG:", r"Oops", r"WARNING:", r"Call Trace", r"Kernel panic", r"unable to handle",
                          r"soft lockup", r"rcu: INFO", r"segfault", r"general protection", r"invalid opcode",
                          r"Firmware Bug", r"unchecked MSR"):
            self.assert_nowhere(complaint, self.text)


class OneCpuBoot(LinuxBoot):
    script = SCRIPT + CLOCK_SCRIPT + END_SCRIPT

    def test_clock_does_not_drift(self):
        span = self.ticks[-1][0] - self.ticks[0][0]
        self.assertGreater(span, 60)
        # A line may be late, never early: the least of several differences has the least of the delay in it.
        late = [ours - guests for guests, ours in self.ticks]
        third = len(late) // 3
        drift = min(late[-third:]) - min(late[:third])
        self.assertLess(abs(drift), 0.01 * span)


class OneCpu(OneCpuBoot, unittest.TestCase):
    pass


class OneCpuUserIrqchip(OneCpuBoot, unittest.TestCase):
    irqchip = "user"


class OneCpuSplitIrqchip(OneCpuBoot, unittest.TestCase):
    irqchip = "split"


class ManyCpuBoot(LinuxBoot):
    cpus = 2

    def test_cpus_interrupt_each_other(self):
        self.assertGreater(sum(self.counts("Rescheduling interrupts")) + sum(self.counts("Function call interrupts")), 0)


class TwoCpus(ManyCpuBoot, unittest.TestCase):
    pass


class TwoCpusUserIrqchip(ManyCpuBoot, unittest.TestCase):
    irqchip = "user"


class TwoCpusSplitIrqchip(ManyCpuBoot, unittest.TestCase):
    irqchip = "split"


class FourCpusUserIrqchip(ManyCpuBoot, unittest.TestCase):
    cpus = 4
    irqchip = "user"


# Minutes more, for little more to see.
if os.environ.get("LINUX_BOOT_ALL"):

    class FourCpus(ManyCpuBoot, unittest.TestCase):
        cpus = 4

    class FourCpusSplitIrqchip(ManyCpuBoot, unittest.TestCase):
        cpus = 4
        irqchip = "split"


if __name__ == "__main__":
    unittest.main(verbosity=2)
