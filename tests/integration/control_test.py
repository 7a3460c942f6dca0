"""The control socket from outside: vmm ctl, and clients that speak JSON themselves or misbehave.

    control_test.py PATH-OF-VMM
"""
import json
import os
import pathlib
import signal
import socket
import stat
import subprocess
import tempfile
import unittest

import vmm_process
from vmm_process import Guest, Running, eventually, needs_kvm, vmm


class Client:
    """Speaks JSON lines itself."""

    def __init__(self, test, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(vmm_process.PATIENCE)
        test.addCleanup(self.socket.close)
        self.socket.connect(str(path))
        self.file = self.socket.makefile("rb")
        test.addCleanup(self.file.close)

    def send(self, text):
        self.socket.sendall(text.encode(), socket.MSG_NOSIGNAL)

    def answer(self):
        return json.loads(self.file.readline())

    def ask(self, command, **arguments):
        self.send(json.dumps({"id": command, "command": command, "arguments": arguments}) + "\n")
        return self.answer()


class Usage(unittest.TestCase):
    def expect(self, status, text, *arguments):
        code, out, err = vmm("ctl", *arguments)
        self.assertEqual((code, out), (status, ""), err)
        self.assertIn(text, err)
        self.assertEqual(err.count("\n"), 1, err)

    def test_what_is_missing_is_said(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "socket")
            self.expect(1, f"There is no socket {path}", path, "status")
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path)
            listener.close()
            self.expect(1, f"Nobody listens on {path}", path, "status")

    def test_wrong_commands(self):
        self.expect(2, "there is no command 'explode'", "/nowhere", "explode")
        self.expect(2, "balloon SIZE", "/nowhere", "balloon")
        self.expect(2, "up|down", "/nowhere", "net", "net0", "left")
        self.expect(2, "disk add OPTIONS", "/nowhere", "disk", "add")
        self.expect(2, "net remove NAME [force]", "/nowhere", "net", "remove", "net0", "now")

    def test_socket_that_cannot_be(self):
        code, _, err = vmm("run", "--control", "/nowhere/socket")
        self.assertEqual(code, 1, err)
        self.assertIn("--control", err)


@needs_kvm
class Control(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.path = self.folder / "control"

    def start(self, *options, guest=None):
        guest = guest or Guest().hang()
        running = Running(self, [*guest.arguments(self), "--control", self.path, *options],
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.assertTrue(eventually(self.is_running))
        return running

    def is_running(self, resets=0):
        # The file is there a moment before somebody listens, and the socket before the machine.
        code, out, _ = vmm("ctl", self.path, "--json", "status")
        status = json.loads(out) if code == 0 else {"state": None}
        return status["state"] == "running" and status["resets"] == resets

    def ctl(self, *words):
        code, out, err = vmm("ctl", self.path, *words)
        self.assertEqual((code, err), (0, ""))
        return out

    def refused(self, *words):
        code, out, err = vmm("ctl", self.path, *words)
        self.assertEqual((code, out), (1, ""))
        return err

    def status(self):
        return json.loads(self.ctl("--json", "status"))

    def test_status_tells_of_the_machine(self):
        self.start("--balloon=size=1M", "--cpus", "2", "--net", "user,mac=52:54:00:00:00:07")
        self.assertTrue(eventually(lambda: self.status()["state"] == "running"))
        status = self.status()
        self.assertEqual((status["cpus"], status["memory"], status["resets"]), (2, 4 << 20, 0))
        self.assertEqual(status["balloon"]["target"], 1 << 20)
        self.assertEqual(status["nets"][0]["mac"], "52:54:00:00:00:07")
        self.assertEqual(status["disks"], [])
        text = self.ctl("status")
        self.assertIn("2 CPUs, 4 MiB of memory", text)
        self.assertIn("net0", text)

    def test_pause_and_resume(self):
        self.start()
        self.ctl("pause")
        self.assertEqual(self.status()["state"], "paused")
        self.ctl("pause")
        self.ctl("resume")
        self.assertTrue(eventually(lambda: self.status()["state"] == "running"))
        self.ctl("resume")

    def test_quit_while_paused(self):
        running = self.start()
        self.ctl("pause")
        self.ctl("quit")
        self.assertEqual(running.wait(), 130)
        self.assertIn("control socket", running.process.stderr.read().decode())
        self.assertFalse(self.path.exists())

    def test_signal_and_timeout_end_a_paused_guest(self):
        running = self.start()
        self.ctl("pause")
        running.signal(signal.SIGTERM)
        self.assertEqual(running.wait(), 130)
        running = self.start("--timeout", "3")
        self.ctl("pause")
        self.assertEqual(running.wait(), 26)

    def test_devices_that_are_not_there(self):
        self.start()
        self.assertIn("no balloon", self.refused("balloon", "1M"))
        self.assertIn("no disk", self.refused("disk", "disk0", "resize"))
        self.assertIn("no network interface", self.refused("net", "net0", "down"))

    def test_limits_change(self):
        images = [self.folder / name for name in ("limited", "free")]
        for image in images:
            image.write_bytes(bytes(1 << 20))
        self.start("--disk", f"path={images[0]},iops=10", "--disk", f"path={images[1]}")
        self.assertEqual(self.ctl("disk", "disk0", "limit", "bps=1M,iops-wr=5"), "")
        self.assertEqual(self.ctl("disk", "disk0", "limit", "none"), "")
        self.assertIn("without limits", self.refused("disk", "disk1", "limit", "iops=5"))
        self.assertIn("disk1", self.refused("disk", "disk7", "limit", "iops=5"))

    def test_devices_change(self):
        image = self.folder / "image"
        image.write_bytes(bytes(1 << 20))
        self.start("--balloon", "--disk", f"path={image}", "--net", "user")
        self.ctl("balloon", "2M")
        self.assertEqual(self.status()["balloon"]["target"], 2 << 20)
        self.assertIn("larger", self.refused("balloon", "8M"))
        self.assertEqual(self.ctl("disk", "disk0", "resize", "3M"), "3 MiB\n")
        self.assertEqual(image.stat().st_size, 3 << 20)
        self.assertIn("can only grow", self.refused("disk", "disk0", "resize", "2M"))
        os.truncate(image, 4 << 20)
        self.assertEqual(self.status()["disks"][0]["size"], 3 << 20)
        self.assertEqual(self.ctl("disk", "disk0", "resize"), "4 MiB\n")
        self.assertIn("disk0", self.refused("disk", "disk1", "resize"))
        self.ctl("net", "net0", "down")
        self.assertFalse(self.status()["nets"][0]["link"])
        self.ctl("net", "net0", "up")
        self.assertTrue(self.status()["nets"][0]["link"])

    def test_queues_have_the_threads_that_were_chosen(self):
        images = [self.folder / name for name in "abc"]
        for image in images:
            image.write_bytes(bytes(1 << 20))
        self.start("--iothreads", "3", "--disk", f"path={images[0]},queues=3,iothread=2:1", "--disk",
                   f"path={images[1]},queues=2", "--net", "user,iothread=3")
        status = self.status()
        self.assertEqual([disk["queue_threads"] for disk in status["disks"]], [[2, 1, 2], [1, 1]])
        self.assertEqual(status["nets"][0]["queue_threads"], [3, 3, 3])
        self.assertIn("disk0    1 MiB, 0 requests, 0 errors, queues on I/O threads 2:1:2\n", self.ctl("status"))
        self.assertIn("I/O thread 4", self.refused("disk", "add", f"path={images[2]},iothread=4"))
        self.assertIn("queues=2", self.refused("disk", "add", f"path={images[2]},iothread=3:1"))
        self.assertEqual(self.ctl("disk", "add", f"path={images[2]},queues=2,iothread=3:1"), "disk2\n")
        self.assertEqual(self.status()["disks"][2]["queue_threads"], [3, 1])

    def test_threads_that_are_not_there(self):
        image = self.folder / "image"
        image.write_bytes(bytes(1 << 20))
        for options, way_out in ((["--disk", f"path={image},iothread=1"], "--iothreads 1"),
                                 (["--iothreads", "2", "--disk", f"path={image},iothread=1:2"], "queues=2")):
            code, _, err = vmm("run", *options)
            self.assertEqual(code, 2, err)
            self.assertIn(way_out, err)

    def test_devices_come_and_go(self):
        image = self.folder / "image"
        image.write_bytes(bytes(1 << 20))
        self.start("--disk", f"path={image}", "--net", "user", guest=Guest().eject())
        self.assertIn("in use", self.refused("disk", "add", f"path={image}"))
        self.ctl("disk", "remove", "disk0")
        self.assertEqual(self.status()["disks"], [])
        self.assertIn("no disk", self.refused("disk", "remove", "disk0"))
        self.assertEqual(self.ctl("disk", "add", f"path={image},serial=X"), "disk0\n")
        self.assertEqual(self.ctl("net", "add", "user,mac=52:54:00:00:00:08"), "net1\n")
        self.assertEqual([net["name"] for net in self.status()["nets"]], ["net0", "net1"])
        self.assertIn("52:54:00:00:00:08", self.refused("net", "add", "user,mac=52:54:00:00:00:08"))
        self.ctl("net", "remove", "net0", "force")
        self.assertEqual([net["name"] for net in self.status()["nets"]], ["net1"])
        self.assertEqual(self.ctl("net", "add", "user"), "net0\n")

    def test_devices_that_cannot_come_or_go(self):
        image = self.folder / "image"
        image.write_bytes(bytes(1 << 20))
        running = self.start("--transport", "mmio", "--disk", f"path={image}")
        self.assertIn("--transport pci", self.refused("net", "add", "user"))
        self.assertIn("--transport pci", self.refused("disk", "remove", "disk0"))
        self.assertIn("is unknown", self.refused("disk", "add", "path=x,color=red"))
        self.assertIn("There is no", self.refused("net", "add", "tap=vmmnone0"))
        running.signal(signal.SIGTERM)
        running.wait()
        self.start("--disk", f"path={image}")
        self.ctl("pause")
        self.assertIn("paused", self.refused("disk", "remove", "disk0"))

    def test_slots_run_out(self):
        self.start("--hotplug-slots", "1")
        self.assertEqual(self.ctl("net", "add", "user"), "net0\n")
        self.assertIn("--hotplug-slots", self.refused("net", "add", "user"))

    def test_added_devices_outlive_a_reset(self):
        image = self.folder / "image"
        image.write_bytes(bytes(1 << 20))
        guest = Guest().wait_for_input().reset()
        running = Running(self, [*guest.arguments(self), "--control", self.path], stdin=subprocess.PIPE,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.assertTrue(eventually(self.is_running))
        self.ctl("disk", "add", f"path={image}")
        self.ctl("net", "add", "user")
        running.process.stdin.write(b"x")
        running.process.stdin.flush()
        self.assertTrue(eventually(lambda: self.is_running(resets=1)))
        status = self.status()
        self.assertEqual([device["name"] for device in status["disks"] + status["nets"]], ["disk0", "net0"])

    def test_overlay_does_not_grow(self):
        image = self.folder / "image"
        image.write_bytes(bytes(1 << 20))
        self.start("--disk", f"path={image},cow")
        self.assertIn("not written", self.refused("disk", "disk0", "resize", "3M"))
        self.assertEqual(image.stat().st_size, 1 << 20)

    def test_socket_is_the_owners(self):
        running = self.start()
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        code, _, err = vmm("run", "--control", self.path)
        self.assertEqual(code, 2, err)
        self.assertIn("in use", err)
        running.process.kill()
        running.wait()
        self.assertTrue(self.path.exists(), "nobody could remove it")
        self.start()

    def test_several_clients_and_requests(self):
        self.start()
        first, second = Client(self, self.path), Client(self, self.path)
        first.send('{"id": 1, "command": "status"}\n{"id": 2, "command": "nothing"}\n')
        self.assertEqual(second.ask("resume"), {"id": "resume", "result": {}})
        self.assertEqual(first.answer()["id"], 1)
        self.assertEqual(first.answer()["error"]["code"], "unknown_command")

    def test_clients_that_misbehave(self):
        self.start()
        endless, deaf = Client(self, self.path), Client(self, self.path)
        try:
            endless.send("x" * 1_000_000)
        except OSError:
            pass  # sent away meanwhile
        deaf.send('{"command": "status"}\n' * 5000)
        deaf.socket.close()
        polite = Client(self, self.path)
        self.assertEqual(polite.ask("explode")["error"]["code"], "unknown_command")
        polite.send("what?\n")
        self.assertEqual(polite.answer()["error"]["code"], "bad_request")
        self.assertIn("result", polite.ask("status"))


if __name__ == "__main__":
    vmm_process.main()
