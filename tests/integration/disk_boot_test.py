"""Linux and disks: file systems made on either side, filled, flushed, a host that fails, and a power cut; one boot, many
checks."""
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
import unittest

from guest import Machine, make_initramfs, requirements

MIB = 1024 * 1024

# The disks in their order: vda ext4, made on the host; vdb a plain one; vdc read-only; vdd with a throw-away and vde with
# a kept overlay; vdf on a small tmpfs, vdg to be truncated, vdh at an NBD server. /init is busybox: it has no mke2fs.
# At "ask" the host does something to a disk, and then types a line.
SCRIPT = """\
section() { echo "=== $1"; }
sum() { sha256sum | cut -d' ' -f1; }
ask() { echo "=== ask-$1"; read -r answer; }
put() { dd if=/bin/busybox of=/dev/$1 bs=64k seek=$2 count=$3 conv=fsync 2>/dev/null; echo "put $?"; }
get() { echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/$1 bs=64k skip=$2 count=$3 2>/tmp/said | sum; grep -ciE 'I/O error|Input/output error' /tmp/said; }
section sizes;    for d in a b c d e; do echo "vd$d $(cat /sys/block/vd$d/size)"; done
section serial;   cat /sys/block/vda/serial; echo
section cache;    cat /sys/block/vda/queue/write_cache
section queues;   ls /sys/block/vdb/mq
section discard;  cat /sys/block/vdb/queue/discard_max_bytes; cat /sys/block/vda/queue/discard_max_bytes
section ro;       cat /sys/block/vdc/ro; dd if=/dev/zero of=/dev/vdc bs=512 count=1 conv=fsync 2>&1; dd if=/dev/vdc bs=64k 2>/dev/null | sum
mkdir -p /mnt
section mount;    mount -t ext4 /dev/vda /mnt && cat /mnt/from-host
section fill;     mkdir /mnt/many; i=0; while [ $i -lt 60 ]; do echo "file $i" >/mnt/many/$i; i=$((i + 1)); done; cat /bin/busybox >/mnt/busybox; sync; echo filled
section umount;   umount /mnt && echo unmounted
section again;    mount -t ext4 /dev/vda /mnt && ls /mnt/many | wc -l; cat /mnt/busybox | sum; cat /bin/busybox | sum; umount /mnt
section plain;    dd if=/bin/busybox of=/dev/vdb bs=4k seek=256 count=200 conv=fsync 2>/dev/null; echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vdb bs=4k skip=256 count=200 2>/dev/null | sum; dd if=/bin/busybox bs=4k count=200 2>/dev/null | sum
section cow;      for d in d e; do mount -t ext4 /dev/vd$d /mnt && echo "was here" >/mnt/new && umount /mnt; mount -t ext4 -o ro /dev/vd$d /mnt && cat /mnt/from-host /mnt/new; umount /mnt; done
section flushed;  mount -t ext4 /dev/vda /mnt; echo durable >/mnt/durable; sync
section errors;   dmesg | grep -iE 'I/O error|EXT4-fs error|blk_update_request' || true
dmesg -n 1
section space;    put vdf 0 4; put vdf 16 16
ask space
section more;     put vdf 16 16; get vdf 0 4; get vdf 16 16; dd if=/bin/busybox bs=64k count=4 2>/dev/null | sum; dd if=/bin/busybox bs=64k count=16 2>/dev/null | sum
section whole;    put vdg 0 4; put vdg 64 4
ask truncate
section cut-off;  get vdg 0 4; get vdg 64 4; put vdg 64 4; get vdg 64 4
section server;   put vdh 0 4; put vdh 8 4
ask kill
section gone;     get vdh 0 4; put vdh 16 4
ask restart
section back;     until dd if=/dev/vdh of=/dev/null bs=512 count=1 iflag=direct 2>/dev/null; do busybox usleep 100000; done; get vdh 0 4; get vdh 8 4; put vdh 16 4
section alive;    cat /mnt/durable
section cut
echo lost >/mnt/lost; dd if=/bin/busybox of=/mnt/half bs=64k 2>/dev/null
sleep 1000
"""


def digest(data):
    return hashlib.sha256(data).hexdigest()


def tool(name):
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


class Host:
    """Where the faulty disks are, and what befalls them."""

    def __init__(self, folder, test):
        self.folder = folder
        self.missing = {}  # what the host cannot do, by the disk
        self.small = folder / "small"
        self.small.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", self.small], capture_output=True, check=False)
        if mounted.returncode == 0:
            test.addClassCleanup(subprocess.run, ["umount", "-l", self.small], check=False)
        else:
            self.missing["space"] = "a tmpfs cannot be mounted: " + mounted.stderr.decode().strip()
        for image in (self.small / "image", folder / "whole", folder / "served"):
            with image.open("wb") as file:
                file.truncate(8 * MIB)
        self.socket = folder / "nbd"
        self.server = None
        if tool("nbdkit"):
            test.addClassCleanup(self.kill)
            self.restart()
        else:
            self.missing["server"] = "there is no nbdkit: install the package"

    def disks(self):
        yield f"path={self.small / 'image'}"
        yield f"path={self.folder / 'whole'}"
        yield f"path={self.folder / 'served'}" if "server" in self.missing else f"nbd:nbd+unix:///?socket={self.socket}"

    def space(self):
        if "space" not in self.missing:
            subprocess.run(["mount", "-o", "remount,size=16M", self.small], check=True)

    def truncate(self):
        os.truncate(self.folder / "whole", 2 * MIB)

    def kill(self):
        if self.server:
            self.server.kill()
            self.server.wait()
            self.server = None

    def restart(self):
        if "server" in self.missing:
            return
        self.socket.unlink(missing_ok=True)
        self.server = subprocess.Popen(["nbdkit", "-f", "--exit-with-parent", "-U", self.socket, "file", self.folder / "served"])
        while not self.socket.exists() and self.server.poll() is None:
            time.sleep(0.01)


class DiskBoot(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        kernel = requirements()
        if not tool("mke2fs"):
            raise unittest.SkipTest("there is no mke2fs: install the package e2fsprogs")
        cls.folder = tempfile.TemporaryDirectory(dir="/var/tmp")
        cls.addClassCleanup(cls.folder.cleanup)
        folder = pathlib.Path(cls.folder.name)
        content = folder / "content"
        content.mkdir()
        (content / "from-host").write_text("hello from the host\n", encoding="utf-8")
        cls.image = {name: folder / name for name in ("ext4", "plain", "read-only", "thrown", "kept", "overlay")}
        for name in ("ext4", "thrown", "kept"):
            subprocess.run([tool("mke2fs"), "-q", "-t", "ext4", "-d", content, cls.image[name], "16M"], check=True)
        cls.image["plain"].write_bytes(bytes(8 * MIB))
        cls.noise = os.urandom(MIB)
        cls.image["read-only"].write_bytes(cls.noise)
        cls.before = {name: digest(cls.image[name].read_bytes()) for name in ("read-only", "thrown", "kept")}

        script = folder / "script"
        script.write_text(SCRIPT, encoding="utf-8")
        initramfs = make_initramfs(folder, "--script", script)
        disks = [f"path={cls.image['ext4']},serial=SN-0815", f"path={cls.image['plain']},queues=2,discard",
                 f"path={cls.image['read-only']},ro", f"path={cls.image['thrown']},cow",
                 f"path={cls.image['kept']},cow={cls.image['overlay']}"]
        cls.host = Host(folder, cls)
        disks += cls.host.disks()
        arguments = ["--kernel", kernel, "--initrd", str(initramfs), "--mem", "128M"]
        for disk in disks:
            arguments += ["--disk", disk]
        with Machine(arguments) as machine:
            for fault in ("space", "truncate", "kill", "restart"):
                machine.wait_for(f"=== ask-{fault}\r?\n")
                getattr(cls.host, fault)()
                machine.type("\n")
            machine.wait_for("=== cut\r?\n")
            second = subprocess.run([os.environ["VMM"], "run", "--disk", f"path={cls.image['ext4']}"],
                                    capture_output=True, text=True, timeout=60, check=False)
            cls.second = (second.returncode, second.stderr)
            # The power goes: what was flushed has to be there.
            machine.process.kill()
            machine.process.wait()
            cls.text = machine.text.replace("\r", "")
        cls.sections = {}
        for part in re.split(r"^=== ", cls.text, flags=re.MULTILINE)[1:]:
            name, _, body = part.partition("\n")
            cls.sections[name] = re.sub(r"^\[ *\d+\.\d+\] .*\n", "", body, flags=re.MULTILINE)

    def file_in(self, image, name):
        shown = subprocess.run([tool("debugfs"), "-R", f"cat {name}", image], capture_output=True, text=True, check=True)
        return shown.stdout

    def check(self, image):
        """The journal is replayed, and then nothing is left to repair."""
        subprocess.run([tool("e2fsck"), "-p", image], capture_output=True, check=False)
        result = subprocess.run([tool("e2fsck"), "-f", "-n", image], capture_output=True, text=True, check=False)
        self.assertEqual(result.returncode, 0, result.stdout)

    def test_sizes_are_the_images(self):
        self.assertEqual(self.sections["sizes"].split(),
                         ["vda", "32768", "vdb", "16384", "vdc", "2048", "vdd", "32768", "vde", "32768"])

    def test_serial_number(self):
        self.assertEqual(self.sections["serial"].strip(), "SN-0815")

    def test_cache_is_writeback(self):
        self.assertEqual(self.sections["cache"].strip(), "write back")

    def test_discard_where_it_was_asked_for(self):
        self.assertEqual([int(n) > 0 for n in self.sections["discard"].split()], [True, False])

    def test_read_only_disk(self):
        lines = self.sections["ro"].split("\n")
        self.assertEqual(lines[0], "1")
        self.assertRegex(self.sections["ro"], "(?i)read-only|not permitted")
        self.assertIn(digest(self.noise), self.sections["ro"])
        self.assertEqual(digest(self.image["read-only"].read_bytes()), self.before["read-only"])

    def test_file_system_of_the_host_is_read(self):
        self.assertIn("hello from the host", self.sections["mount"])

    def test_file_system_keeps_what_was_written(self):
        self.assertIn("filled", self.sections["fill"])
        self.assertIn("unmounted", self.sections["umount"])
        count, first, second = self.sections["again"].split()
        self.assertEqual(count, "60")
        self.assertEqual(first, second)

    def test_plain_disk_is_written_and_read(self):
        first, second = self.sections["plain"].split()
        self.assertEqual(first, second)
        self.assertEqual(digest(self.image["plain"].read_bytes()[MIB:MIB + 200 * 4096]), first)

    def test_overlays_leave_the_image_as_it_is(self):
        self.assertEqual(self.sections["cow"].count("hello from the host"), 2)
        self.assertEqual(self.sections["cow"].count("was here"), 2)
        for name in ("thrown", "kept"):
            self.assertEqual(digest(self.image[name].read_bytes()), self.before[name], name)

    def test_kept_overlay_holds_what_was_flushed(self):
        overlay = self.image["overlay"].read_bytes()
        self.assertEqual(overlay[:8], b"vmm-cow\n")
        start = int.from_bytes(overlay[40:48], "little")
        whole = bytearray(self.image["kept"].read_bytes())
        bits = overlay[4096:start]
        for sector in range(len(whole) // 512):
            if bits[sector // 8] >> sector % 8 & 1:
                whole[512 * sector:512 * (sector + 1)] = overlay[start + 512 * sector:start + 512 * (sector + 1)]
        together = pathlib.Path(self.folder.name) / "together"
        together.write_bytes(whole)
        self.check(together)
        self.assertEqual(self.file_in(together, "new"), "was here\n")

    def test_flushed_file_outlives_the_process(self):
        self.check(self.image["ext4"])
        self.assertEqual(self.file_in(self.image["ext4"], "durable"), "durable\n")
        self.assertEqual(self.file_in(self.image["ext4"], "many/59"), "file 59\n")

    def test_nothing_went_wrong(self):
        self.assertEqual(self.sections["errors"].strip(), "")

    def fault(self, disk, *names):
        """The words of some sections; skips the test when the host could not do its part."""
        if disk in self.host.missing:
            self.skipTest(self.host.missing[disk])
        return [self.sections[name].split() for name in names]

    def words(self, count):
        return digest(self.busybox[:count * 65536])

    @property
    def busybox(self):
        with subprocess.Popen(["sh", "-c", "cat ${BUSYBOX:-$(command -v busybox)}"], stdout=subprocess.PIPE) as process:
            return process.stdout.read()

    def test_full_host_is_an_error_until_there_is_space(self):
        space, more = self.fault("space", "space", "more")
        self.assertEqual(space[:2], ["put", "0"])
        self.assertNotEqual(space[2:], ["put", "0"])
        # What had been flushed before is there, and what did not fit the first time.
        self.assertEqual(more, ["put", "0", self.words(4), "0", self.words(16), "0", self.words(4), self.words(16)])

    def test_truncated_image_is_an_error_behind_its_end(self):
        whole, cut_off = self.fault("whole", "whole", "cut-off")
        self.assertEqual(whole, ["put", "0", "put", "0"])
        first, second, rest = cut_off[:2], cut_off[2:4], cut_off[4:]
        self.assertEqual(first, [self.words(4), "0"])
        self.assertEqual(second, [digest(b""), "1"])
        # A file that is written behind its end grows again.
        self.assertEqual(rest, ["put", "0", self.words(4), "0"])

    def test_killed_server_is_an_error_until_it_is_back(self):
        server, gone, back = self.fault("server", "server", "gone", "back")
        self.assertEqual(server, ["put", "0", "put", "0"])
        self.assertEqual(gone[:2], [digest(b""), "1"])
        self.assertNotEqual(gone[2:], ["put", "0"])
        self.assertEqual(back, [self.words(4), "0", self.words(4), "0", "put", "0"])
        served = (self.host.folder / "served").read_bytes()
        self.assertEqual(served[:4 * 65536], self.busybox[:4 * 65536])
        self.assertEqual(served[16 * 65536:20 * 65536], self.busybox[:4 * 65536])

    def test_machine_outlives_its_disks(self):
        self.assertEqual(self.sections["alive"].strip(), "durable")

    def test_second_machine_is_refused_the_image(self):
        status, said = self.second
        self.assertEqual(status, 2, said)
        self.assertIn(str(self.image["ext4"]), said)
        self.assertIn("--disk", said)
        self.assertIn("',ro'", said)


if __name__ == "__main__":
    unittest.main(verbosity=2)
