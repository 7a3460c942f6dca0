"""Linux that is reset and cloned again and again, through the library's Python bindings.

From the environment, beside what guest.py takes:
    VMM_LIBRARY    libvmm.so under test
    RESETS         how often the guest is reset (default 300)
    CLONES         how many clones live at once (default 20)
"""
import os
import pathlib
import re
import sys
import tempfile
import unittest

from guest import PATIENCE_SECONDS, ROOT, make_initramfs, requirements

sys.path.insert(0, str(ROOT / "python"))
import vmm  # noqa: E402 (its place is known only now)

RESETS = int(os.environ.get("RESETS", "300"))
CLONES = int(os.environ.get("CLONES", "20"))
MEMORY = 256 << 20
# Answers each line with how many came before, in this life of the guest, and twice the number that was sent. To "forks":
# how often ACPI told it of a new generation ID, and whether its driver for that is there and has said so.
SCRIPT = """\
n=0
echo ready
while read -r number; do
  if [ "$number" = forks ]; then
    read -r events rest </sys/firmware/acpi/interrupts/gpe02
    driver=no
    [ -d /sys/bus/acpi/drivers/vmgenid ] && driver=yes
    echo "forks $events driver $driver said $(dmesg | grep -c 'virtual machine fork')."
    continue
  fi
  echo "answer $n $((number * 2))"
  n=$((n + 1))
done
"""


def private_kib(name=None):
    """KiB that only this process has; in mappings whose name contains `name`, or in all."""
    total, counts = 0, True
    for line in pathlib.Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        word = line.split(maxsplit=5)
        if not word[0].endswith(":"):
            counts = name is None or (len(word) > 5 and name in word[5])
        elif counts and word[0] in ("Private_Clean:", "Private_Dirty:"):
            total += int(word[1])
    return total


def threads():
    return len(os.listdir("/proc/self/task"))


def descriptors():
    return len(os.listdir("/proc/self/fd"))


class SnapshotLinux(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        kernel = requirements()
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        script = pathlib.Path(cls.folder.name) / "script"
        script.write_text(SCRIPT, encoding="utf-8")
        initramfs = make_initramfs(cls.folder.name, "--script", script)
        cls.vm = vmm.Vm(kernel=kernel, initrd=initramfs, cmdline="console=ttyS0 quiet", memory=MEMORY)
        cls.addClassCleanup(cls.vm.close)
        booted = cls.vm.run_until(PATIENCE_SECONDS, console="ready")
        assert booted.met, booted
        # Its shell comes to wait for a line.
        cls.vm.run(0.5)
        cls.snapshot = cls.vm.snapshot()

    def answer(self, guest, number, expected):
        guest.send(f"{number}\n")
        stop = guest.run_until(60, match=f"answer {expected} {2 * number}")
        self.assertTrue(stop.met, f"{stop}: {guest.console[-1000:]}")

    def test_resets_do_not_drift(self):
        """Each life of the guest is a few milliseconds long; every hundredth answers, and twice, so that the next one
        would tell if anything of it had remained."""
        before = None
        for turn in range(RESETS):
            self.vm.reset_to(self.snapshot)
            if turn % 100 == 0:
                self.answer(self.vm, turn, 0)
                self.answer(self.vm, turn + 1, 1)
            else:
                self.vm.run_until(0.005, exits=20)
            if turn == RESETS // 2:
                before = private_kib(), threads(), descriptors()
        self.vm.reset_to(self.snapshot)
        self.answer(self.vm, RESETS, 0)
        after = private_kib(), threads(), descriptors()
        print(f"{RESETS} resets: private KiB, threads, descriptors {before} after half of them, {after} at the end")
        self.assertEqual(before[1:], after[1:])
        # Beside the text of the console, which is kept, and the decoded code of a CPU that comes to something new
        # (interpreter.md), nothing may become more: a page each time would be twice as much with 10,000.
        self.assertLess(after[0] - before[0], 8192)

    def test_resets_undo_processes(self):
        """Page tables that the guest has changed are memory, and what KVM has derived from them is not."""
        for turn in range(10):
            self.vm.reset_to(self.snapshot)
            self.answer(self.vm, turn, 0)
            self.vm.send("forks\n")
            stop = self.vm.run_until(60, match=r"forks \d+ driver .*\.")
            self.assertTrue(stop.met, f"{turn}: {stop}: {self.vm.console[-1000:]}")

    def test_clones_all_answer(self):
        """They live at the same time, and everyone knows of itself alone."""
        empty = private_kib(), threads(), descriptors()
        guests_before = private_kib("vmm-snapshot")
        clones = [vmm.Vm(snapshot=self.snapshot) for _ in range(CLONES)]
        made = private_kib()
        for number, clone in enumerate(clones):
            self.answer(clone, number, 0)
        for number, clone in enumerate(clones):
            self.answer(clone, CLONES + number, 1)
        each = (private_kib() - empty[0]) / CLONES
        guest_each = (private_kib("vmm-snapshot") - guests_before) / CLONES
        print(f"{CLONES} clones: private KiB each {(made - empty[0]) / CLONES:.0f} when made, {each:.0f} after two "
              f"answers, {guest_each:.0f} of that guest memory")
        self.assertLess((made - empty[0]) / CLONES, 1024)
        self.assertLess(guest_each, 1024)
        # Where this process executes the guest's kernel, what each has decoded that the others have not comes on top.
        self.assertLess(each, 1024)
        for clone in clones:
            clone.close()
        self.assertEqual((threads(), descriptors()), empty[1:])

    def test_a_clone_knows_that_it_is_one(self):
        def forks(guest):
            guest.send("forks\n")
            stop = guest.run_until(60, match=r"forks \d+ driver .*\.")
            self.assertTrue(stop.met, f"{stop}: {guest.console[-1000:]}")
            return re.findall(r"forks (\d+) driver (\w+) said (\d+)\.", guest.console)[-1]

        self.vm.reset_to(self.snapshot)
        events, driver, said = forks(self.vm)
        self.assertEqual((events, said), ("0", "0"))
        with vmm.Vm(snapshot=self.snapshot) as first:
            self.answer(first, 1, 0)
            # Linux says so only when it already had random numbers to make anew.
            events, driver, said = forks(first)
            self.assertEqual(events, "1")
            with first.clone() as second:
                self.answer(second, 2, 1)
                self.assertEqual(forks(second)[0], "2")
        print(f"driver of the generation ID: {driver}, has said so {said} times")

    def test_clones_of_a_clone(self):
        with vmm.Vm(snapshot=self.snapshot) as first:
            self.answer(first, 1, 0)
            with first.clone() as second:
                self.answer(second, 2, 1)
                with second.clone() as third:
                    self.answer(third, 3, 2)
                    self.answer(first, 4, 1)
                    self.answer(second, 5, 2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
