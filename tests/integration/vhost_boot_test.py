"""Linux with devices that other processes serve: a qcow2 disk, a shared directory, and a disk whose server dies; one boot."""
import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from guest import Machine, make_initramfs, program, requirements

MIB = 1024 * 1024

# vda is the qcow2 disk, vdb the one whose server will die, vdc one whose server will come back.
SCRIPT = """\
section() { echo "=== $1"; }
sum() { sha256sum | cut -d' ' -f1; }
mkdir -p /mnt /share /readonly
section sizes;     for d in a b c; do cat /sys/block/vd$d/size; done
section qcow2;     mount -t ext4 /dev/vda /mnt && cat /mnt/from-host; cat /bin/busybox >/mnt/busybox; sync; umount /mnt; echo 3 >/proc/sys/vm/drop_caches
section again;     mount -t ext4 /dev/vda /mnt; cat /mnt/busybox | sum; umount /mnt; cat /bin/busybox | sum
section share;     mount -t virtiofs home /share && cat /share/noise | sum
section back;      mkdir /share/guest && cat /bin/busybox >/share/guest/busybox; echo "from the guest" >/share/guest/note; sync; ls /share/guest | sort
section readonly;  mount -t virtiofs fixed /readonly && cat /readonly/noise | sum; touch /readonly/new 2>&1; echo "status $?"
section nodevice;  mount -t virtiofs nothing /mnt 2>&1; echo "status $?"
section load;      echo started; while dd if=/dev/zero of=/dev/vdb bs=64k count=500 oflag=direct 2>/tmp/dd; do true; done
grep -icE 'i/o error|input/output error' /tmp/dd; dd if=/dev/vdb of=/dev/null bs=4k count=1 iflag=direct 2>&1 | grep -icE 'i/o error|input/output error'
section returned;  dd if=/bin/busybox of=/dev/vdc bs=64k oflag=direct 2>/dev/null; echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vdc bs=4k count=100 2>/dev/null | sum; dd if=/bin/busybox bs=4k count=100 2>/dev/null | sum
section server;    echo gone; i=0; while ls /share/guest >/dev/null 2>&1 && [ $i -lt 600 ]; do sleep 0.1; i=$((i + 1)); done; ls /share/guest 2>&1; echo "status $?"
section alive;     dd if=/dev/vda of=/dev/null bs=4k count=1 2>/dev/null && echo fine
section end
"""


def digest(data):
    return hashlib.sha256(data).hexdigest()


def storage_daemon(image, kind, listener):
    """Serves an image; returns when it listens."""
    daemon = subprocess.Popen(
        ["qemu-storage-daemon",
         "--blockdev", f"driver=file,node-name=file,filename={image}",
         "--blockdev", f"driver={kind},node-name=disk,file=file",
         "--export", f"type=vhost-user-blk,id=export,addr.type=unix,addr.path={listener},node-name=disk,"
                     "writable=on,num-queues=2"])
    while not listener.exists() and daemon.poll() is None:
        time.sleep(0.01)
    return daemon


def children_of(process):
    """Process IDs of all descendants."""
    parents = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = pathlib.Path("/proc", entry, "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:  # it has just ended
            continue
        parents[int(entry)] = int(stat.rpartition(")")[2].split()[1])
    found = {process}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {process}


class VhostBoot(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        kernel = requirements()
        for name, package in (("qemu-storage-daemon", "qemu-utils"), ("mke2fs", "e2fsprogs")):
            if not shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
                raise unittest.SkipTest(f"there is no {name}: install the package {package}")
        if os.geteuid() != 0:
            raise unittest.SkipTest("virtiofsd of Debian 12 has to be started by root")
        cls.folder = tempfile.TemporaryDirectory(dir="/var/tmp")
        cls.addClassCleanup(cls.folder.cleanup)
        folder = cls.path = pathlib.Path(cls.folder.name)
        (folder / "content").mkdir()
        (folder / "content" / "from-host").write_text("hello from the host\n", encoding="utf-8")
        (folder / "shared").mkdir()
        cls.noise = os.urandom(3 * MIB)
        (folder / "shared" / "noise").write_bytes(cls.noise)
        raw = folder / "ext4"
        subprocess.run(["/sbin/mke2fs", "-q", "-t", "ext4", "-d", folder / "content", raw, "32M"], check=True)
        cls.qcow2 = folder / "disk.qcow2"
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, cls.qcow2], check=True)
        for name in ("dies", "returns"):
            with open(folder / name, "wb") as file:
                file.truncate(64 * MIB)
        script = folder / "script"
        script.write_text(SCRIPT, encoding="utf-8")
        initramfs = make_initramfs(folder, "--script", script)

        sockets = {name: folder / f"{name}.sock" for name in ("qcow2", "dies", "returns", "control")}
        daemons = {
            "qcow2": storage_daemon(cls.qcow2, "qcow2", sockets["qcow2"]),
            "dies": storage_daemon(folder / "dies", "raw", sockets["dies"]),
            "returns": storage_daemon(folder / "returns", "raw", sockets["returns"]),
        }
        cls.addClassCleanup(lambda: [(daemon.kill(), daemon.wait()) for daemon in daemons.values()])
        arguments = ["--kernel", kernel, "--initrd", str(initramfs), "--mem", "128M",
                     "--control", str(sockets["control"]),
                     "--disk", f"vhost-user-blk={sockets['qcow2']},queues=2",
                     "--disk", f"vhost-user-blk={sockets['dies']}",
                     "--disk", f"vhost-user-blk={sockets['returns']},reconnect",
                     "--share", f"{folder / 'shared'}:home",
                     "--share", f"path={folder / 'shared'},tag=fixed,ro"]
        with Machine(arguments) as machine:
            machine.close_input()
            machine.wait_for("=== load\r?\nstarted")
            # Both in the middle of what they are doing, the second one only for a moment.
            cls.wait_for_requests(sockets["control"], "disk1")
            daemons["dies"].kill()
            daemons["returns"].kill()
            daemons["returns"].wait()
            sockets["returns"].unlink()
            machine.wait_for("=== returned")
            daemons["returns"] = storage_daemon(folder / "returns", "raw", sockets["returns"])
            machine.wait_for("=== server\r?\ngone")
            cls.servers = children_of(machine.process.pid)
            for pid in cls.servers:
                # Some are each other's children, and end with them.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            machine.wait_for("=== alive")
            cls.status = json.loads(cls.ask(sockets["control"]))["remotes"]
            cls.exit_status = machine.wait_for_end()
            cls.said = machine.stderr()
            cls.text = machine.text.replace("\r", "")
        # What they left behind is collected by the process that adopts it, in its own time.
        deadline = time.monotonic() + 60
        while True:
            cls.left = [pid for pid in cls.servers if os.path.exists(f"/proc/{pid}")]
            if not cls.left or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        daemons["qcow2"].terminate()
        daemons["qcow2"].wait()
        cls.sections = {}
        for part in re.split(r"^=== ", cls.text, flags=re.MULTILINE)[1:]:
            name, _, body = part.partition("\n")
            cls.sections[name] = re.sub(r"^\[ *\d+\.\d+\] .*\n", "", body, flags=re.MULTILINE)

    @staticmethod
    def ask(control):
        return subprocess.run([program(), "ctl", str(control), "--json", "status"], capture_output=True, text=True,
                              check=True).stdout

    @classmethod
    def wait_for_requests(cls, control, name):
        while next(r["requests"] for r in json.loads(cls.ask(control))["remotes"] if r["name"] == name) < 20:
            time.sleep(0.01)

    def test_sizes_are_the_servers(self):
        self.assertEqual(self.sections["sizes"].split(), ["65536", "131072", "131072"])

    def test_qcow2_disk_is_read_and_written(self):
        self.assertIn("hello from the host", self.sections["qcow2"])
        first, second = self.sections["again"].split()
        self.assertEqual(first, second)

    def test_qcow2_image_is_sound_afterwards(self):
        subprocess.run(["qemu-img", "check", "-q", self.qcow2], check=True)
        raw = self.path / "back"
        subprocess.run(["qemu-img", "convert", "-O", "raw", self.qcow2, raw], check=True)
        subprocess.run(["/sbin/e2fsck", "-f", "-n", raw], check=True, capture_output=True)
        written = subprocess.run(["/sbin/debugfs", "-R", "cat busybox", raw], capture_output=True, check=True).stdout
        self.assertEqual(digest(written), digest(pathlib.Path(shutil.which("busybox")).read_bytes()))

    def test_shared_directory_is_read(self):
        self.assertEqual(self.sections["share"].strip(), digest(self.noise))

    def test_shared_directory_is_written(self):
        self.assertEqual(self.sections["back"].split(), ["busybox", "note"])
        guest = self.path / "shared" / "guest"
        self.assertEqual((guest / "note").read_text(encoding="utf-8"), "from the guest\n")
        self.assertEqual(digest((guest / "busybox").read_bytes()),
                         digest(pathlib.Path(shutil.which("busybox")).read_bytes()))

    def test_read_only_directory_is_not_written(self):
        lines = self.sections["readonly"].strip().split("\n")
        self.assertEqual(lines[0], digest(self.noise))
        self.assertRegex(lines[1], "(?i)read-only")
        self.assertEqual(lines[2], "status 1")
        self.assertFalse((self.path / "shared" / "new").exists())

    def test_unknown_tag_is_refused(self):
        self.assertNotIn("status 0", self.sections["nodevice"])

    def test_killed_server_is_io_errors(self):
        self.assertEqual(self.sections["load"].split()[-2:], ["1", "1"])

    def test_server_that_returns_is_waited_for(self):
        first, second = self.sections["returned"].split()
        self.assertEqual(first, second)

    def test_killed_file_server_is_an_error(self):
        self.assertRegex(self.sections["server"], "(?i)not connected")
        self.assertIn("status 1", self.sections["server"])

    def test_machine_lives_and_powers_off(self):
        self.assertIn("fine", self.sections["alive"])
        self.assertEqual(self.exit_status, 0, self.said)

    def test_no_process_is_left(self):
        self.assertGreaterEqual(len(self.servers), 2)
        self.assertEqual(self.left, [])

    def test_status_tells_of_losses(self):
        status = {remote["name"]: remote for remote in self.status}
        self.assertEqual(set(status), {"disk0", "disk1", "disk2", "fs0", "fs1"})
        self.assertEqual([status[name]["losses"] for name in ("disk0", "disk1", "disk2")], [0, 1, 1])
        self.assertEqual([status[name]["connected"] for name in ("disk0", "disk1", "disk2")], [True, False, True])
        self.assertGreater(status["disk1"]["errors"], 0)
        self.assertEqual(status["disk2"]["errors"], 0)

    def test_each_loss_is_one_line(self):
        for name in ("dies.sock", "returns.sock"):
            gone = [line for line in self.said.splitlines() if name in line and "is gone" in line]
            self.assertEqual(len(gone), 1, self.said)


if __name__ == "__main__":
    unittest.main(verbosity=2)
