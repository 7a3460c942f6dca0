"""Linux whose memory grows and shrinks while it runs, and that has files of the host as persistent memory. One boot."""
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
import unittest

from guest import PROMPT, make_initramfs, requirements
from hotplug_boot_test import Changing

MIB = 1024 * 1024
START, GROWN, MOST = 128 * MIB, 256 * MIB, 384 * MIB
FILL = 48  # MiB that the guest writes
PATIENCE = 900  # seconds until memory is as wanted, where kernel code is interpreted


def tool(name):
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def digest(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


class MemoryBoot(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        kernel = requirements()
        if not tool("mke2fs"):
            raise unittest.SkipTest("there is no mke2fs: install the package e2fsprogs")
        folder = tempfile.TemporaryDirectory(dir="/var/tmp")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        content = cls.folder / "content"
        content.mkdir()
        (content / "from-host").write_text("hello from the host\n", encoding="utf-8")
        cls.file, cls.aside, cls.disk = (cls.folder / name for name in ("pmem", "aside", "disk"))
        # A block as large as a page is what DAX needs.
        subprocess.run([tool("mke2fs"), "-q", "-t", "ext4", "-b", "4096", "-d", content, cls.file, "32M"], check=True)
        cls.aside.write_bytes(b"as it was".ljust(2 * MIB, b"."))
        cls.aside_before = digest(cls.aside)
        subprocess.run([tool("mke2fs"), "-q", "-t", "ext4", "-d", content, cls.disk, "16M"], check=True)
        initramfs = make_initramfs(cls.folder, "--shell")
        arguments = ["--kernel", kernel, "--initrd", str(initramfs), "--mem", "128M", "--memory-max", "384M",
                     "--cmdline", "memhp_default_state=online_movable", "--pmem", f"file={cls.file}",
                     "--pmem", f"file={cls.aside},discard-writes", "--disk", f"path={cls.disk}"]
        cls.seen = {}
        with Changing(arguments, cls.folder / "control") as machine:
            machine.wait_for(PROMPT)
            for step in (cls.persistent, cls.refused, cls.grow, cls.use, cls.shrink, cls.grow_again):
                step(machine)
            cls.seen["errors"] = machine.run("dmesg | grep -E 'BUG:|Oops|WARNING:|I/O error|EXT4-fs error|"
                                             "virtio_mem.*([Ff]ail|rror)' || true")
            machine.type("poweroff -f\n")
            cls.status = machine.wait_for_end()
            cls.stderr = machine.stderr()

    @classmethod
    def persistent(cls, machine):
        cls.seen["pmem"] = machine.run("ls /dev/pmem0 /dev/pmem1; cat /sys/block/pmem0/size /sys/block/pmem1/size").split()
        machine.run("mkdir -p /mnt; mount -t ext4 -o dax /dev/pmem0 /mnt")
        cls.seen["mounts"] = machine.run("grep /mnt /proc/mounts")
        cls.seen["from host"] = machine.run("cat /mnt/from-host")
        machine.run("cat /bin/busybox >/mnt/busybox; echo from the guest >/mnt/from-guest; sync")
        cls.seen["busybox"] = machine.run("sha256sum </bin/busybox").split()[0]
        # What is in the file now would survive the end of the machine.
        cls.seen["in file"] = b"from the guest\n" in cls.file.read_bytes()
        cls.seen["unmounted"] = machine.run("umount /mnt && echo yes")
        machine.run("dd if=/bin/busybox of=/dev/pmem1 bs=4k count=100 conv=fsync 2>/dev/null")
        cls.seen["aside"] = (machine.run("dd if=/bin/busybox bs=4k count=100 2>/dev/null | sha256sum"),
                             machine.run("dd if=/dev/pmem1 bs=4k count=100 2>/dev/null | sha256sum"))

    @classmethod
    def refused(cls, machine):
        cls.seen["beyond"] = [machine.ctl("memory", size) for size in ("64M", "512M", "129M")]
        cls.seen["snapshot"] = subprocess.run(
            [os.environ["VMM"], "snapshot", cls.folder / "control", cls.folder / "snapshot"],
            capture_output=True, text=True, timeout=120, check=False)

    @staticmethod
    def total(machine):
        """Bytes of memory that the guest says it has."""
        return int(re.search(r"MemTotal:\s+(\d+) kB", machine.run("cat /proc/meminfo"))[1]) * 1024

    @staticmethod
    def wait_for_plugged(machine, size):
        end = time.monotonic() + PATIENCE
        while (plugged := machine.status()["plugged"]["plugged"]) != size and time.monotonic() < end:
            time.sleep(1)
        return plugged

    @classmethod
    def change(cls, machine, size):
        """What came of asking for that size: the answer, what is plugged, what the guest says it has."""
        answer = machine.ctl("memory", f"{size // MIB}M")
        return answer, cls.wait_for_plugged(machine, size), cls.total(machine)

    @classmethod
    def grow(cls, machine):
        cls.seen["start"] = (machine.status()["plugged"], cls.total(machine))
        cls.seen["grown"] = cls.change(machine, GROWN)

    @classmethod
    def use(cls, machine):
        before = machine.resident()
        machine.run(f"dd if=/dev/zero of=/tmp/fill bs=1M count={FILL} 2>/dev/null")
        cls.seen["filled"] = (before, machine.resident())
        # A file's cache is movable memory, which is what was plugged.
        machine.run("mount -t ext4 /dev/vda /mnt; cat /bin/busybox >/mnt/busybox; umount /mnt")
        cls.seen["movable"] = machine.run("grep -A 20 Movable /proc/zoneinfo | grep -m1 managed").split()

    @classmethod
    def shrink(cls, machine):
        machine.run("rm /tmp/fill")
        before = machine.resident()
        cls.seen["shrunk"] = cls.change(machine, START)
        cls.seen["given back"] = (before, machine.resident())

    @classmethod
    def grow_again(cls, machine):
        cls.seen["again"] = cls.change(machine, GROWN)

    def file_in(self, image, name):
        shown = subprocess.run([tool("debugfs"), "-R", f"cat {name}", image], capture_output=True, check=True)
        return shown.stdout

    def test_guest_ends_well(self):
        self.assertEqual(self.status, 0, self.stderr)
        self.assertEqual(self.seen["errors"], "")

    def test_files_are_persistent_memories(self):
        self.assertEqual(self.seen["pmem"], ["/dev/pmem0", "/dev/pmem1", str(32 * MIB // 512), str(2 * MIB // 512)])

    def test_file_system_is_mounted_without_a_page_cache(self):
        self.assertRegex(self.seen["mounts"], r"^/dev/pmem0 /mnt ext4 \S*\bdax")
        self.assertEqual(self.seen["from host"], "hello from the host\n")

    def test_what_the_guest_wrote_is_in_the_file(self):
        self.assertTrue(self.seen["in file"])
        self.assertEqual(self.seen["unmounted"], "yes\n")
        self.assertEqual(self.file_in(self.file, "from-guest"), b"from the guest\n")
        self.assertEqual(hashlib.sha256(self.file_in(self.file, "busybox")).hexdigest(), self.seen["busybox"])
        checked = subprocess.run([tool("e2fsck"), "-f", "-n", self.file], capture_output=True, text=True, check=False)
        self.assertEqual(checked.returncode, 0, checked.stdout)

    def test_discarded_writes_are_the_guests_alone(self):
        self.assertEqual(*self.seen["aside"])
        self.assertEqual(digest(self.aside), self.aside_before)

    def test_sizes_that_cannot_be_are_refused(self):
        for status, _, stderr in self.seen["beyond"]:
            self.assertEqual(status, 1, stderr)
            self.assertIn("from 128 MiB to 384 MiB, by 2 MiB", stderr)

    def test_machine_is_not_saved(self):
        done = self.seen["snapshot"]
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("--pmem", done.stderr)
        self.assertIn("--memory-max", done.stderr)
        self.assertFalse((self.folder / "snapshot").exists())

    def test_memory_grows(self):
        plugged, total = self.seen["start"]
        self.assertEqual(plugged, {"requested": START, "plugged": START, "most": MOST, "block": 2 * MIB})
        answer, size, now = self.seen["grown"]
        self.assertEqual((answer, size), ((0, "", ""), GROWN))
        self.assertEqual(now - total, GROWN - START)
        self.assertGreater(int(self.seen["movable"][-1]), 0)
        before, filled = self.seen["filled"]
        self.assertGreater(filled - before, FILL * MIB // 2)

    def test_disk_reads_memory_that_was_plugged(self):
        self.assertEqual(hashlib.sha256(self.file_in(self.disk, "busybox")).hexdigest(), self.seen["busybox"])

    def test_memory_shrinks_and_the_host_has_it_back(self):
        answer, size, now = self.seen["shrunk"]
        self.assertEqual((answer, size), ((0, "", ""), START))
        self.assertEqual(now, self.seen["start"][1])
        before, after = self.seen["given back"]
        self.assertGreater(before - after, FILL * MIB // 2)

    def test_memory_grows_again(self):
        answer, size, now = self.seen["again"]
        self.assertEqual((answer, size), ((0, "", ""), GROWN))
        self.assertEqual(now, self.seen["grown"][2])


if __name__ == "__main__":
    unittest.main(verbosity=2)
