"""Snapshots whose writer is killed at any moment: the file is the old one or the new one, and good.

    snapshot_kill_test.py PATH-OF-VMM

KILLS says how often (default 40).
"""
import json
import os
import pathlib
import random
import subprocess
import tempfile
import time
import unittest

import vmm_process
from vmm_process import Guest, Running, eventually, needs_kvm, vmm

KILLS = int(os.environ.get("KILLS", "40"))


def busy_guest():
    """Counts in the first word of each page from 1 MiB to 17 MiB, round and round."""
    return Guest().raw(
        [0xBB, 0x00, 0x00, 0x10, 0x00]  # start: mov ebx, 0x100000
        + [0x48, 0xFF, 0x03]  # again: inc qword [rbx]
        + [0x81, 0xC3, 0x00, 0x10, 0x00, 0x00]  # add ebx, 0x1000
        + [0x81, 0xFB, 0x00, 0x00, 0x10, 0x01]  # cmp ebx, 0x1100000
        + [0x72, 0xEF]  # jb again
        + [0xEB, 0xE8]  # jmp start
    )


@needs_kvm
class Kills(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(dir="/var/tmp")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.control = self.folder / "control"
        self.base, self.file = self.folder / "base.snap", self.folder / "guest.snap"

    def start(self, *arguments):
        running = Running(self, [*arguments, "--control", self.control],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertTrue(eventually(lambda: self.is_running(running)), "the guest does not run")
        return running

    def is_running(self, running):
        if running.process.poll() is not None:
            self.fail(running.process.stderr.read())
        code, out, _ = vmm("ctl", self.control, "--json", "status")
        return code == 0 and json.loads(out)["state"] == "running"

    def read(self, file):
        """The ID of a file, whose checksums must all be right."""
        code, out, err = vmm("inspect", file)
        self.assertEqual((code, err), (0, ""), file)
        return json.loads(out)["file"]["id"]

    def left_over(self):
        """What lies there beside the files of the test. One thing may: a file that was whole, had the name under which it was to
        be moved to the final one, and not yet that; such a one goes away."""
        others = sorted(set(os.listdir(self.folder)) - {"base.snap", "control", "guest.bin", "guest.snap"})
        if len(others) == 1 and others[0].startswith("guest.snap."):
            other = self.folder / others[0]
            self.read(other)
            other.unlink()
            return []
        return others

    def test_no_torn_file_and_no_good_one_refused(self):
        seed = int.from_bytes(os.urandom(4), "little")
        print(f"seed {seed}")
        chance = random.Random(seed)
        running = self.start("run", "--kernel", self.image(), "--boot", "flat", "--mem", "32M")
        began = time.monotonic()
        self.assertEqual(vmm("snapshot", self.control, self.base)[0], 0)
        span = time.monotonic() - began
        self.assertEqual(vmm("snapshot", self.control, self.file)[0], 0)
        counts = {"old": 0, "new": 0, "reported": 0}
        before = self.read(self.file)
        for turn in range(KILLS):
            more = ["--base", self.base] if turn % 2 else []
            client = subprocess.Popen([vmm_process.VMM, "snapshot", self.control, self.file, *more],
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(chance.uniform(0, 2 * span))
            running.process.kill()
            running.process.wait()
            reported = client.wait() == 0
            after = self.read(self.file)
            new = after != before
            counts["new" if new else "old"] += 1
            # About half of them are to come before the new file has its name, whatever else the host is doing.
            span = max(0.001, span * (0.87 if new else 1.15))
            counts["reported"] += reported
            if reported:
                self.assertTrue(new, "what was reported as written is not there")
            self.assertEqual(self.left_over(), [])
            before = after
            # Whatever is there goes on, and is what is saved next.
            running = self.start("restore", self.file)
        print(f"{KILLS} kills: {counts}")
        if KILLS >= 40:
            self.assertGreater(counts["old"], 0, "no kill came in time")
            self.assertGreater(counts["new"], 0, "every kill came too early")

    def image(self):
        file = self.folder / "guest.bin"
        file.write_bytes(busy_guest().code)
        return file


if __name__ == "__main__":
    vmm_process.main()
