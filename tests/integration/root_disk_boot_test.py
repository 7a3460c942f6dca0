"""Debian's bash on a root file system on a virtio disk that mmdebstrap made, and a file system that Debian's mke2fs makes on
another one: a boot for each transport.

From the environment, besides what guest.py wants: ROOT_DISK names an image as scripts/root-disk.sh makes it; without it one
is made in build/root-disk, and kept.
"""
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

from guest import ROOT, Machine, make_initramfs, requirements

# The first process: makes the disk the root, and becomes bash.
FIRST = """\
#!/bin/sh
export PATH=/bin
mkdir -p /mnt
mount -t devtmpfs devtmpfs /dev
mount -t ext4 /dev/vda /mnt
mount -t devtmpfs devtmpfs /mnt/dev
mount -t proc proc /mnt/proc
cp /commands /mnt/root/commands
exec busybox switch_root /mnt /bin/bash /root/commands
"""

# What bash runs, still as the first process: builtins, pipes, programs from the disk, dpkg's own database, files, and a
# file system on the second disk. There is no poweroff; the kernel's own ways are magic keys.
COMMANDS = """\
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
echo "=== version"; echo "$BASH_VERSION"
echo "=== arithmetic"; declare -A square; for i in {1..9}; do square[$i]=$((i * i)); done; echo "${square[9]} ${#square[@]}"
echo "=== programs"; ls /usr/bin | wc -l; ldd /bin/bash | grep -c 'libc.so'; printf '%s\\n' c a b | sort | tr -d '\\n'; echo
echo "=== packages"; dpkg-query -W -f '${Status}\\n' bash coreutils
echo "=== root"; while read -r device place kind rest; do [[ $place == / ]] && echo "$device $kind"; done </proc/mounts
echo "=== write"; seq 1 20000 >/root/numbers; sync; sha256sum </root/numbers
echo "=== made"; mke2fs -q -t ext4 -L made-here /dev/vdb && mkdir /root/made && mount /dev/vdb /root/made && echo mounted
mkdir /root/made/many; for i in {1..200}; do echo "file $i" >/root/made/many/$i; done; cp -r /etc/init.d /root/numbers /root/made/
umount /root/made && e2fsck -fn /dev/vdb >/root/checked 2>&1; echo "e2fsck $?"
echo "=== end"
echo u >/proc/sysrq-trigger
echo o >/proc/sysrq-trigger
sleep 1000
"""


NUMBERS = "".join(f"{n}\n" for n in range(1, 20001)).encode()


def root_image():
    if "ROOT_DISK" in os.environ:
        return os.environ["ROOT_DISK"]
    image = ROOT / "build/root-disk/root.ext4"
    made = subprocess.run([ROOT / "scripts/root-disk.sh", image], capture_output=True, text=True, check=False,
                          timeout=1800)  # a mirror may hang
    if made.returncode != 0:
        raise unittest.SkipTest("there is no root file system: " + (made.stderr.strip() or "?").splitlines()[-1])
    return image


class RootDisk:
    transport = ""

    @classmethod
    def setUpClass(cls):
        kernel = requirements()
        image = root_image()
        folder = tempfile.TemporaryDirectory(dir="/var/tmp")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.made = cls.folder / "made.ext4"
        with open(cls.made, "wb") as file:
            file.truncate(64 << 20)
        first, commands = (cls.folder / name for name in ("first", "commands"))
        first.write_text(FIRST, encoding="utf-8")
        commands.write_text(COMMANDS, encoding="utf-8")
        initramfs = make_initramfs(cls.folder, "--script", first, "--add", f"{commands}:/commands")
        # The root's image stays as it is: what is written goes to an overlay.
        arguments = ["--kernel", kernel, "--initrd", str(initramfs), "--mem", "256M", "--transport", cls.transport,
                     "--disk", f"path={image},cow={cls.folder}/overlay", "--disk", f"path={cls.made}",
                     "--cmdline", "rdinit=/script"]
        with Machine(arguments) as machine:
            machine.close_input()
            cls.status = machine.wait_for_end()
            cls.text = machine.text.replace("\r", "")
        cls.sections = {}
        for part in re.split(r"^=== ", cls.text, flags=re.MULTILINE)[1:]:
            name, _, body = part.partition("\n")
            cls.sections[name] = re.sub(r"^\[ *\d+\.\d+\] .*\n", "", body, flags=re.MULTILINE).strip()

    def test_bash_runs(self):
        self.assertRegex(self.sections["version"], r"^5\.\d")
        self.assertEqual(self.sections["arithmetic"], "81 9")

    def test_programs_run_from_the_disk(self):
        count, libraries, words = self.sections["programs"].split()
        self.assertGreater(int(count), 100)
        self.assertEqual((libraries, words), ("1", "abc"))

    def test_packages_are_debians(self):
        self.assertEqual(self.sections["packages"].split("\n"), ["install ok installed"] * 2)

    def test_root_is_the_disk(self):
        self.assertIn("ext4", self.sections["root"])

    def test_what_was_written_is_read(self):
        self.assertEqual(self.sections["write"].split()[0], hashlib.sha256(NUMBERS).hexdigest())

    def test_file_system_is_made_mounted_and_filled(self):
        self.assertEqual(self.sections["made"], "mounted\ne2fsck 0")

    def test_host_finds_the_file_system_sound(self):
        checked = self.host("e2fsck", "-fn", self.made)
        self.assertEqual(checked.returncode, 0, checked.stdout)
        self.assertRegex(checked.stdout.decode(), r"made-here: 2\d\d/")  # files

    def test_host_reads_what_the_guest_wrote(self):
        self.assertEqual(self.host("debugfs", "-R", "cat /numbers", self.made).stdout, NUMBERS)
        self.assertEqual(self.host("debugfs", "-R", "cat /many/200", self.made).stdout, b"file 200\n")

    def host(self, tool, *arguments):
        program = shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
        if program is None:
            self.skipTest(f"there is no {tool}: install the package e2fsprogs")
        return subprocess.run([program, *arguments], capture_output=True, check=False)

    def test_machine_powers_off(self):
        self.assertEqual(self.status, 0)


class Pci(RootDisk, unittest.TestCase):
    transport = "pci"


class Mmio(RootDisk, unittest.TestCase):
    transport = "mmio"


if __name__ == "__main__":
    unittest.main(verbosity=2)
