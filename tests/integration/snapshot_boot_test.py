"""Linux that is saved to a file while it works on a disk, and goes on from there: twice at once, and with its interrupt
controllers elsewhere."""
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from guest import Machine, make_initramfs, program, requirements

MIB = 1024 * 1024
# Each line's answer is what the disk says where the line's number points, after it was written there.
SCRIPT = """\
echo ready
n=0
while read -r number; do
  n=$((n + 1))
  echo "value $number" | dd of=/dev/vda bs=512 seek=$number conv=notrunc,fsync 2>/dev/null
  echo 3 >/proc/sys/vm/drop_caches
  echo "answer $n $(dd if=/dev/vda bs=512 skip=$number count=1 2>/dev/null | tr -d '\\0')"
  sleep 0.2
  echo "slept $n"
done
"""


class SnapshotBoot(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.kernel = requirements()
        cls.scratch = tempfile.TemporaryDirectory(dir="/var/tmp")
        cls.addClassCleanup(cls.scratch.cleanup)
        cls.folder = pathlib.Path(cls.scratch.name)
        script = cls.folder / "script"
        script.write_text(SCRIPT, encoding="utf-8")
        cls.initramfs = make_initramfs(cls.folder, "--script", script)

    def ask(self, machine, count, number):
        """Its disk and its clock work, and it remembers how often it was asked."""
        since = len(machine.text)
        machine.type(f"{number}\n")
        machine.wait_for(f"answer {count} value {number}\\b", since)
        machine.wait_for(f"slept {count}\\b", since)

    def save(self, irqchip, *options):
        """A guest that was asked once, and its disk as it was then."""
        disk, control, file = self.folder / f"{irqchip}.img", self.folder / "control", self.folder / f"{irqchip}.snap"
        disk.write_bytes(bytes(MIB))
        with Machine(["--kernel", self.kernel, "--initrd", str(self.initramfs), "--mem", "128M", "--irqchip", irqchip,
                      "--disk", f"path={disk}", "--control", str(control), *options]) as machine:
            machine.wait_for("ready")
            self.ask(machine, 1, 5)
            subprocess.run([program(), "ctl", control, "pause"], check=True)
            subprocess.run([program(), "snapshot", control, file], check=True)
            shutil.copy(disk, self.folder / f"{irqchip}-then.img")
            subprocess.run([program(), "ctl", control, "resume"], check=True)
            self.ask(machine, 2, 6)
        return file, self.folder / f"{irqchip}-then.img"

    def restored(self, file, disk, *options):
        return Machine(["--restore", str(file), "--disk", f"path={disk},cow", *options])

    def test_two_go_on_at_once(self):
        file, disk = self.save("auto")
        with self.restored(file, disk) as first, self.restored(file, disk) as second:
            self.ask(first, 2, 7)
            self.ask(second, 2, 8)
            self.ask(first, 3, 8)
            self.ask(second, 3, 7)

    # A guest that boots with the controllers in KVM takes minutes where kernel code is interpreted; both ways are gone
    # as it is.
    def test_interrupt_controllers_move_to_split_and_back(self):
        file, disk = self.save("user", "--cpus", "2")
        control, back = self.folder / "control", self.folder / "back.snap"
        with self.restored(file, disk, "--irqchip", "split", "--control", str(control)) as machine:
            self.ask(machine, 2, 9)
            self.ask(machine, 3, 10)
            subprocess.run([program(), "ctl", control, "pause"], check=True)
            subprocess.run([program(), "snapshot", control, back], check=True)
        with self.restored(back, disk, "--irqchip", "user") as machine:
            self.ask(machine, 4, 11)


if __name__ == "__main__":
    unittest.main(verbosity=2)
