"""Linux while its machine changes: disks and interfaces come and go, the balloon moves, an interface with two pairs of
queues, one behind passt. One boot on two CPUs; the host's side stands in a network namespace of the test's own."""
import fcntl
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import tempfile
import threading
import time
import unittest
import http.server

from guest import PROMPT, Machine, make_initramfs, requirements
from network_test import DHCP, Files, digest, enter_namespace, in_namespace, ip

MIB = 1024 * 1024
TAP = "vmmtest1"
HOST, GATEWAY, GUEST = "10.98.0.1", "10.98.0.254", "10.98.0.2"


def tool(name):
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def is_locked(image):
    with open(image, "r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        return False


class Changing(Machine):
    """A guest with a shell, and its control socket."""

    def __init__(self, arguments, control):
        super().__init__([*arguments, "--control", str(control)])
        self.control = control
        self.number = 0

    def run(self, command):
        """What the command prints in the guest."""
        self.number += 1
        since = len(self.text)
        # The terminal repeats what is typed, but not like this.
        self.type(f"echo beg''in{self.number}; {command}; echo e''nd{self.number}\n")
        match = self.wait_for(rf"(?s)begin{self.number}\r?\n(.*?)end{self.number}\r?\n", since)
        return re.sub(r"^\[ *\d+\.\d+\] .*\n", "", match[1].replace("\r", ""), flags=re.MULTILINE)

    def await_path(self, pattern, there=True):
        """Waits in the guest until something of that name is there, or nothing is any more; the names."""
        condition = f"ls -d {pattern} >/dev/null 2>&1"
        condition = condition if there else f"! {condition}"
        self.run(f"i=0; until {condition} || [ $i -ge 120 ]; do sleep 1; i=$((i + 1)); done")
        return self.run(f"ls -d {pattern} 2>/dev/null").split()

    def ctl(self, *words):
        done = subprocess.run([os.environ["VMM"], "ctl", self.control, *words], capture_output=True, text=True,
                              timeout=120, check=False)
        return done.returncode, done.stdout, done.stderr

    def status(self):
        return json.loads(self.ctl("--json", "status")[1])

    def thread_times(self):
        """Nanoseconds on a CPU of each thread, by its name."""
        times = {}
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            name = (task / "comm").read_text(encoding="ascii").strip()
            times[name] = int((task / "schedstat").read_text(encoding="ascii").split()[0])
        return times

    def resident(self):
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(re.search(r"VmRSS:\s+(\d+) kB", text)[1]) * 1024


class HotPlug(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        kernel = requirements()
        if not in_namespace():
            raise unittest.SkipTest("no network namespace is to be had")
        if not tool("mke2fs"):
            raise unittest.SkipTest("there is no mke2fs: install the package e2fsprogs")
        ip("link", "set", "lo", "up")
        ip("tuntap", "add", TAP, "mode", "tap", "multi_queue")
        cls.addClassCleanup(ip, "link", "delete", TAP)
        ip("address", "add", f"{HOST}/24", "dev", TAP)
        ip("link", "set", TAP, "up")
        # What passt takes its addresses from.
        ip("route", "add", "default", "via", GATEWAY, "dev", TAP)
        Files.contents = {"/file": random.Random(5).randbytes(200_000)}
        server = http.server.ThreadingHTTPServer(("", 0), Files)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        cls.addClassCleanup(server.server_close)
        cls.addClassCleanup(server.shutdown)
        cls.port = server.server_port
        folder = tempfile.TemporaryDirectory(dir="/var/tmp")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        for name in ("first", "second"):
            (cls.folder / name).mkdir()
            (cls.folder / name / "from-host").write_text(f"hello, {name}\n", encoding="utf-8")
            subprocess.run([tool("mke2fs"), "-q", "-t", "ext4", "-d", cls.folder / name,
                            cls.folder / f"{name}.img", "8M"], check=True)
        (cls.folder / "dhcp").write_text(DHCP, encoding="utf-8")
        initramfs = make_initramfs(cls.folder, "--shell", "--add", f"{cls.folder}/dhcp:/dhcp")
        arguments = ["--kernel", kernel, "--initrd", str(initramfs), "--mem", "128M", "--cpus", "2", "--balloon",
                     "--iothreads", "4", "--disk", f"path={cls.folder}/first.img,queues=2,iothread=2:1",
                     "--net", f"tap={TAP},queues=2,iothread=3:4"]
        cls.seen = {}
        with Changing(arguments, cls.folder / "control") as machine:
            machine.wait_for(PROMPT)
            for step in (cls.queues, cls.queues_of_the_disk, cls.disk_comes_and_goes, cls.first_disk_goes, cls.guest_ejects_by_itself,
                         cls.interface_comes_and_goes, cls.balloon, cls.passt):
                step(machine)
            cls.seen["errors"] = machine.run("dmesg | grep -iE 'BUG|Oops|WARNING:|acpiphp.*fail' || true")
            machine.type("poweroff -f\n")
            cls.status = machine.wait_for_end()
            cls.stderr = machine.stderr()

    @classmethod
    def queues(cls, machine):
        machine.run(f"ip link set lo up; ip link set eth0 up; ip addr add {GUEST}/24 dev eth0")
        cls.seen["queues"] = machine.run("ls /sys/class/net/eth0/queues").split()
        cls.seen["ping"] = machine.run(f"ping -c 4 {HOST}")
        cls.seen["fetch"] = machine.run(f"wget -q -O - http://{HOST}:{cls.port}/file | sha256sum")

    @classmethod
    def queues_of_the_disk(cls, machine):
        """Which of two I/O threads has had more to do when one CPU, and then the other, has read."""
        cls.seen["queue threads"] = [device["queue_threads"] for key in ("disks", "nets")
                                     for device in machine.status()[key]]
        cls.seen["busier"] = {}
        for queue in (0, 1):
            cpu = int(machine.run(f"cat /sys/block/vda/mq/{queue}/cpu_list").split(",")[0])
            before = machine.thread_times()
            machine.run(f"taskset {1 << cpu} dd if=/dev/vda of=/dev/null bs=64k count=64 skip={64 * queue} 2>/dev/null")
            after = machine.thread_times()
            cls.seen["busier"][queue] = max(("io1", "io2"), key=lambda name: after[name] - before[name])

    @classmethod
    def disk_comes_and_goes(cls, machine):
        image = cls.folder / "second.img"
        cls.seen["add disk"] = machine.ctl("disk", "add", f"path={image},serial=HOT-1")
        cls.seen["disk there"] = machine.await_path("/sys/block/vdb")
        cls.seen["serial"] = machine.run("cat /sys/block/vdb/serial; echo")
        cls.seen["content"] = machine.run("mkdir -p /mnt; mount -t ext4 /dev/vdb /mnt && cat /mnt/from-host")
        machine.run("echo written >/mnt/from-guest; umount /mnt")
        cls.seen["locked before"] = is_locked(image)
        cls.seen["add twice"] = machine.ctl("disk", "add", f"path={image}")
        cls.seen["remove disk"] = machine.ctl("disk", "remove", "disk1")
        cls.seen["locked after"] = is_locked(image)
        cls.seen["disk gone"] = machine.await_path("/sys/block/vdb", there=False)
        cls.seen["disks"] = [disk["name"] for disk in machine.status()["disks"]]

    @classmethod
    def first_disk_goes(cls, machine):
        cls.seen["first disk"] = machine.run("dd if=/dev/vda bs=64k 2>/dev/null | sha256sum")
        cls.seen["remove first"] = machine.ctl("disk", "remove", "disk0")
        cls.seen["first gone"] = machine.await_path("/sys/block/vda", there=False)
        # Into the same slot.
        cls.seen["first again"] = machine.ctl("disk", "add", f"path={cls.folder}/first.img,ro")
        machine.await_path("/sys/block/vd?")
        cls.seen["second reading"] = machine.run("dd if=/dev/vda bs=64k 2>/dev/null | sha256sum")

    @classmethod
    def guest_ejects_by_itself(cls, machine):
        slot = machine.run("cd /sys/bus/pci/slots; for i in *; do grep -q \"$(busybox basename $(busybox "
                           "readlink -f /sys/block/vda/../../..) | cut -d. -f1)\" $i/address && echo $i; done; cd /").split()
        cls.seen["slot"] = slot
        if not slot:
            return
        power = f"/sys/bus/pci/slots/{slot[0]}/power"
        machine.run(f"echo 0 >{power}")
        cls.seen["switched off"] = machine.await_path("/sys/block/vda", there=False)
        machine.run(f"echo 1 >{power}")
        cls.seen["switched on"] = machine.await_path("/sys/block/vda")
        cls.seen["third reading"] = machine.run("dd if=/dev/vda bs=64k 2>/dev/null | sha256sum")

    @classmethod
    def interface_comes_and_goes(cls, machine):
        cls.seen["add net"] = machine.ctl("net", "add", "user,mac=52:54:00:00:00:42")
        cls.seen["net there"] = machine.await_path("/sys/class/net/eth1")
        machine.run("ip link set eth1 up")
        cls.seen["dhcp"] = machine.run("udhcpc -i eth1 -n -q -t 10 -s /dhcp")
        cls.seen["user fetch"] = machine.run(f"wget -q -O - http://10.0.2.2:{cls.port}/file | sha256sum")
        cls.seen["remove net"] = machine.ctl("net", "remove", "net1")
        cls.seen["net gone"] = machine.await_path("/sys/class/net/eth1", there=False)

    @classmethod
    def balloon(cls, machine):
        fill = "dd if=/dev/zero of=/tmp/fill bs=1M count=32 2>/dev/null; sync; rm /tmp/fill"
        machine.run(fill)
        full = machine.resident()
        cls.seen["balloon"] = machine.ctl("balloon", "48M")
        cls.seen["inflated"] = cls.wait_for_balloon(machine, 48 * MIB)
        empty = machine.resident()
        machine.ctl("balloon", "0")
        cls.seen["deflated"] = cls.wait_for_balloon(machine, 0)
        machine.run(fill)
        cls.seen["resident"] = (full, empty, machine.resident())

    @staticmethod
    def wait_for_balloon(machine, size):
        end = time.monotonic() + 300
        while (actual := machine.status()["balloon"]["actual"]) != size and time.monotonic() < end:
            time.sleep(0.5)
        return actual

    @classmethod
    def passt(cls, machine):
        if not tool("passt"):
            return
        machine.run("ip link set eth0 down")  # the two would be in the same network
        cls.seen["add passt"] = machine.ctl("net", "add", "passt")
        machine.await_path("/sys/class/net/eth1")
        machine.run("ip link set eth1 up")
        cls.seen["passt dhcp"] = machine.run("udhcpc -i eth1 -n -q -t 10 -s /dhcp")
        cls.seen["passt fetch"] = machine.run(f"wget -q -O - http://{GATEWAY}:{cls.port}/file | sha256sum")
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(machine.process.pid)],
                                  capture_output=True, text=True, check=False).stdout.split()
        cls.seen["passt dies"] = bool(children)
        for child in children:
            os.kill(int(child), 9)
        cls.seen["carrier"] = machine.run("i=0; while [ $(cat /sys/class/net/eth1/carrier) = 1 ] && [ $i -lt 60 ]; do "
                                          "sleep 1; i=$((i + 1)); done; cat /sys/class/net/eth1/carrier").strip()

    def test_guest_ends_well(self):
        self.assertEqual(self.status, 0, self.stderr)
        self.assertEqual(self.seen["errors"], "")

    def test_interface_has_two_pairs_of_queues(self):
        self.assertEqual(self.seen["queues"], ["rx-0", "rx-1", "tx-0", "tx-1"])
        self.assertIn("4 packets received", self.seen["ping"])
        self.assertIn(digest(Files.contents["/file"]), self.seen["fetch"])

    def test_queues_are_served_by_their_threads(self):
        self.assertEqual(self.seen["queue threads"], [[2, 1], [3, 3, 4, 4, 3]])
        self.assertEqual(self.seen["busier"], {0: "io2", 1: "io1"})

    def test_disk_comes_and_is_used(self):
        self.assertEqual(self.seen["add disk"], (0, "disk1\n", ""))
        self.assertEqual(self.seen["disk there"], ["/sys/block/vdb"])
        self.assertEqual(self.seen["serial"].strip(), "HOT-1")
        self.assertEqual(self.seen["content"], "hello, second\n")

    def test_disk_goes_and_its_image_is_free(self):
        self.assertEqual(self.seen["remove disk"], (0, "", ""))
        self.assertEqual((self.seen["locked before"], self.seen["locked after"]), (True, False))
        self.assertEqual(self.seen["add twice"][0], 1)
        self.assertEqual(self.seen["disk gone"], [])
        self.assertEqual(self.seen["disks"], ["disk0"])
        image = self.folder / "second.img"
        checked = subprocess.run([tool("e2fsck"), "-f", "-n", image], capture_output=True, text=True, check=False)
        self.assertEqual(checked.returncode, 0, checked.stdout)
        shown = subprocess.run([tool("debugfs"), "-R", "cat from-guest", image], capture_output=True, text=True,
                               check=True)
        self.assertEqual(shown.stdout, "written\n")

    def test_disk_that_the_machine_started_with_goes_and_comes_back(self):
        self.assertEqual(self.seen["remove first"], (0, "", ""))
        self.assertEqual(self.seen["first gone"], [])
        self.assertEqual(self.seen["first again"], (0, "disk0\n", ""))
        image = digest((self.folder / "first.img").read_bytes())
        self.assertIn(image, self.seen["first disk"])
        self.assertIn(image, self.seen["second reading"])

    def test_slot_that_the_guest_switches_off_and_on_keeps_its_device(self):
        self.assertTrue(self.seen["slot"])
        self.assertEqual(self.seen["switched off"], [])
        self.assertEqual(self.seen["switched on"], ["/sys/block/vda"])
        self.assertIn(digest((self.folder / "first.img").read_bytes()), self.seen["third reading"])

    def test_interface_comes_is_used_and_goes(self):
        self.assertEqual(self.seen["add net"], (0, "net1\n", ""))
        self.assertEqual(self.seen["net there"], ["/sys/class/net/eth1"])
        self.assertIn("address 10.0.2.15", self.seen["dhcp"])
        self.assertIn(digest(Files.contents["/file"]), self.seen["user fetch"])
        self.assertEqual(self.seen["remove net"], (0, "", ""))
        self.assertEqual(self.seen["net gone"], [])

    def test_balloon_gives_memory_back_and_takes_it(self):
        self.assertEqual(self.seen["balloon"], (0, "", ""))
        self.assertEqual((self.seen["inflated"], self.seen["deflated"]), (48 * MIB, 0))
        full, empty, again = self.seen["resident"]
        self.assertGreater(full - empty, 8 * MIB)
        self.assertGreater(again - empty, 8 * MIB)

    def test_passt_carries_frames_and_its_end_is_a_link_that_is_down(self):
        if "add passt" not in self.seen:
            self.skipTest("there is no passt: install the package passt")
        self.assertEqual(self.seen["add passt"], (0, "net1\n", ""))
        self.assertIn(f"address {HOST}", self.seen["passt dhcp"])
        self.assertIn(digest(Files.contents["/file"]), self.seen["passt fetch"])
        self.assertTrue(self.seen["passt dies"])
        self.assertEqual(self.seen["carrier"], "0")


if __name__ == "__main__":
    enter_namespace()
    unittest.main(verbosity=2)
