"""Linux whose power is cut at random moments while it writes to ext4: the journal makes the file system whole, and each
file that was flushed is there with all its content.

The machine is saved once with its file system mounted; each cut goes on from there, with the disk as it was then.
POWER_CUTS is how many for each kind of disk (50).
"""
import os
import pathlib
import random
import shutil
import subprocess
import tempfile
import time
import unittest

from guest import Machine, make_initramfs, program, requirements

CUTS = int(os.environ.get("POWER_CUTS", "50"))
KEPT = 30  # files before the oldest one is removed
# Beside the files that are flushed, others come and go that never are.
SCRIPT = f"""\
mkdir -p /mnt
mount -t ext4 /dev/vda /mnt
echo mounted
read -r n
(while :; do head -c 300000 /bin/busybox >/mnt/load; mv /mnt/load /mnt/moved; rm /mnt/moved; done) &
while :; do
  yes "record $n" | head -n $((n % 7 * 300 + 1)) | dd of=/mnt/$n bs=64k conv=fsync 2>/dev/null && echo "flushed $n."
  rm -f /mnt/$((n - {KEPT}))
  n=$((n + 1))
done
"""


def tool(name):
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def content(number):
    """What the script writes to a file."""
    return f"record {number}\n" * (number % 7 * 300 + 1)


class PowerCutBoot(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        kernel = requirements()
        if not tool("mke2fs"):
            raise unittest.SkipTest("there is no mke2fs: install the package e2fsprogs")
        cls.scratch = tempfile.TemporaryDirectory(dir="/var/tmp")
        cls.addClassCleanup(cls.scratch.cleanup)
        cls.folder = pathlib.Path(cls.scratch.name)
        script = cls.folder / "script"
        script.write_text(SCRIPT, encoding="utf-8")
        initramfs = make_initramfs(cls.folder, "--script", script)
        cls.disk, cls.state = cls.folder / "disk", cls.folder / "state"
        disk, control = cls.folder / "first", cls.folder / "control"
        subprocess.run([tool("mke2fs"), "-q", "-t", "ext4", disk, "16M"], check=True)
        with Machine(["--kernel", kernel, "--initrd", str(initramfs), "--mem", "128M", "--disk", f"path={disk}",
                      "--control", str(control)]) as machine:
            machine.wait_for("mounted")
            subprocess.run([program(), "ctl", control, "pause"], check=True)
            subprocess.run([program(), "snapshot", control, cls.state], check=True)
            shutil.copy(disk, cls.disk)

    def cut(self, options):
        """Goes on until a random moment, and looks at what is left. The last file that was flushed."""
        disk = self.folder / "cut"
        shutil.copy(self.disk, disk)
        with Machine(["--restore", str(self.state), "--disk", f"path={disk}{options}"]) as machine:
            machine.type("1\n")
            machine.wait_for(r"flushed \d+\.")
            time.sleep(random.uniform(0, 1.5))  # not to wait for something: this is the random moment
            machine.process.kill()
            machine.wait_for_end()
            flushed = int(machine.text.rpartition("flushed ")[2].partition(".")[0])
        self.assertNotIn("EXT4-fs error", machine.text)
        self.check(disk, flushed)
        return flushed

    def check(self, disk, flushed):
        # The journal is replayed, and then nothing is left to repair.
        subprocess.run([tool("e2fsck"), "-p", disk], capture_output=True, check=False)
        result = subprocess.run([tool("e2fsck"), "-f", "-n", disk], capture_output=True, text=True, check=False)
        self.assertEqual(result.returncode, 0, result.stdout)
        with tempfile.TemporaryDirectory(dir=self.folder) as files:
            subprocess.run([tool("debugfs"), "-R", f"rdump / {files}", disk], capture_output=True, check=True)
            for number in range(max(1, flushed - KEPT + 1), flushed + 1):
                file = pathlib.Path(files) / str(number)
                self.assertTrue(file.exists(), f"file {number} of {flushed} was flushed and is not there")
                self.assertEqual(file.read_text(encoding="utf-8"), content(number), f"file {number} of {flushed}")

    def cuts(self, options):
        flushed = [self.cut(options) for _ in range(CUTS)]
        print(f"disk{options}: {CUTS} cuts, after {min(flushed)} to {max(flushed)} files", flush=True)
        # The moments were different ones.
        self.assertGreater(len(set(flushed)), 1)

    def test_image(self):
        self.cuts("")

    def test_direct_image(self):
        self.cuts(",direct")

    def test_what_is_lost_is_found(self):
        """The check itself: of an empty file system nothing was flushed."""
        with self.assertRaises(AssertionError):
            self.check(shutil.copy(self.disk, self.folder / "empty"), 1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
