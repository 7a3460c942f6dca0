#!/usr/bin/env python3
"""A Linux guest that suspends to RAM (ACPI S3): the clock's alarm wakes it, and the power button."""
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

from guest import Machine, make_initramfs, program, requirements

SCRIPT = r"""
grep -q mem /sys/power/state || { echo "no mem"; exit; }
echo "disk before $(md5sum </dev/vda)"
echo "cpus before $(grep -c ^processor /proc/cpuinfo)"
echo 0 >/sys/class/rtc/rtc0/wakealarm
before=$(cat /sys/class/rtc/rtc0/since_epoch)
echo "+4" >/sys/class/rtc/rtc0/wakealarm
echo mem >/sys/power/state && echo "woke by the alarm"
echo "slept $(($(cat /sys/class/rtc/rtc0/since_epoch) - before))"
echo "cpus after $(grep -c ^processor /proc/cpuinfo)"
echo 3 >/proc/sys/vm/drop_caches
echo "disk after $(md5sum </dev/vda)"
time=$(date +%s)
sleep 1
echo "a second took $(($(date +%s) - time))"
echo "waiting for the button"
echo mem >/sys/power/state && echo "woke by the button"
dmesg | grep -E 'BUG|WARNING|Call Trace|unstable' && echo "it complains"
echo "done"
"""


class SuspendBoot:
    arguments = []
    cpus = 1

    @classmethod
    def setUpClass(cls):
        kernel = requirements()
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            script, disk, control = folder / "script", folder / "disk", folder / "control"
            script.write_text(SCRIPT)
            disk.write_bytes(os.urandom(1 << 20))
            initramfs = make_initramfs(folder, "--script", str(script))
            with Machine(["--kernel", kernel, "--initrd", str(initramfs), "--mem", "256M", "--cpus", str(cls.cpus),
                          "--disk", f"path={disk}", "--control", str(control), *cls.arguments]) as machine:
                if machine.wait_for("no mem|waiting for the button").group() == "no mem":
                    raise unittest.SkipTest("the guest kernel has no CONFIG_SUSPEND")
                ask = [program(), "ctl", control]
                while not subprocess.run([*ask, "status"], check=True, capture_output=True,
                                         text=True).stdout.startswith("asleep"):
                    pass
                subprocess.run([*ask, "power-button"], check=True)
                cls.status = machine.wait_for_end()
                cls.text = machine.text

    def value(self, what):
        found = re.search(what + r" (.*?)\r?\n", self.text)
        self.assertTrue(found, f"no {what!r}")
        return found.group(1)

    def test_wakes_by_both(self):
        self.assertIn("woke by the alarm", self.text)
        self.assertIn("woke by the button", self.text)
        self.assertIn("done", self.text)
        self.assertEqual(self.status, 0)

    def test_sleeps_until_the_alarm(self):
        self.assertGreaterEqual(int(self.value("slept")), 3)

    def test_all_cpus_are_back(self):
        self.assertEqual(self.value("cpus before"), str(self.cpus))
        self.assertEqual(self.value("cpus after"), str(self.cpus))

    def test_disk_works_afterwards(self):
        self.assertEqual(self.value("disk before"), self.value("disk after"))

    def test_time_goes_on(self):
        self.assertGreaterEqual(int(self.value("a second took")), 1)

    def test_kernel_has_no_complaint(self):
        self.assertNotIn("it complains", self.text)


class OneCpu(SuspendBoot, unittest.TestCase):
    pass


class TwoCpusUserIrqchip(SuspendBoot, unittest.TestCase):
    cpus = 2
    arguments = ["--irqchip", "user"]


class TwoCpusSplitIrqchip(SuspendBoot, unittest.TestCase):
    cpus = 2
    arguments = ["--irqchip", "split"]


class TwoCpusKernelIrqchip(SuspendBoot, unittest.TestCase):
    cpus = 2
    arguments = ["--irqchip", "kernel"]


if __name__ == "__main__":
    unittest.main()
