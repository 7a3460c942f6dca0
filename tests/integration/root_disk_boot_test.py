"""Debian's bash on a root file system on a virtio disk that mmdebstrap made: one boot.

From the environment, besides what guest.py wants: ROOT_DISK names an image as scripts/root-disk.sh makes it; without it one
is made in build/root-disk, and kept.
"""
import os
import pathlib
import re
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

# What bash runs, still as the first process: builtins, pipes, programs from the disk, dpkg's own database, files. The
# essential packages have neither mount nor poweroff; the kernel's own ways are magic keys.
COMMANDS = """\
echo "=== version"; echo "$BASH_VERSION"
echo "=== arithmetic"; declare -A square; for i in {1..9}; do square[$i]=$((i * i)); done; echo "${square[9]} ${#square[@]}"
echo "=== programs"; ls /usr/bin | wc -l; ldd /bin/bash | grep -c 'libc.so'; printf '%s\\n' c a b | sort | tr -d '\\n'; echo
echo "=== packages"; dpkg-query -W -f '${Status}\\n' bash coreutils
echo "=== root"; while read -r device place kind rest; do [[ $place == / ]] && echo "$device $kind"; done </proc/mounts
echo "=== write"; seq 1 20000 >/root/numbers; sync; sha256sum </root/numbers
echo "=== end"
echo u >/proc/sysrq-trigger
echo o >/proc/sysrq-trigger
sleep 1000
"""


class RootDisk(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        kernel = requirements()
        image = os.environ.get("ROOT_DISK")
        if not image:
            image = ROOT / "build/root-disk/root.ext4"
            made = subprocess.run([ROOT / "scripts/root-disk.sh", image], capture_output=True, text=True, check=False)
            if made.returncode != 0:
                raise unittest.SkipTest("there is no root file system: " + (made.stderr.strip() or "?").splitlines()[-1])
        cls.folder = tempfile.TemporaryDirectory(dir="/var/tmp")
        cls.addClassCleanup(cls.folder.cleanup)
        overlay = pathlib.Path(cls.folder.name) / "overlay"
        first, commands = (pathlib.Path(cls.folder.name) / name for name in ("first", "commands"))
        first.write_text(FIRST, encoding="utf-8")
        commands.write_text(COMMANDS, encoding="utf-8")
        initramfs = make_initramfs(cls.folder.name, "--script", first, "--add", f"{commands}:/commands")
        # The image stays as it is: what is written goes to an overlay.
        arguments = ["--kernel", kernel, "--initrd", str(initramfs), "--mem", "256M",
                     "--disk", f"path={image},cow={overlay}", "--cmdline", "rdinit=/script"]
        with Machine(arguments) as machine:
            machine.close_input()
            machine.wait_for("=== end")
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
        numbers = "".join(f"{n}\n" for n in range(1, 20001))
        digest = subprocess.run(["sha256sum"], input=numbers.encode(), capture_output=True, check=True).stdout.decode()
        self.assertEqual(self.sections["write"].split()[0], digest.split()[0])

    def test_machine_powers_off(self):
        self.assertEqual(self.status, 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
