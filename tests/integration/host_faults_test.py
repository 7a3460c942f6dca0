"""Hosts that fail while a guest runs: a file system without space, images that are truncated or removed, a block device
whose medium has gone, a process that serves the disk and is killed. The guest sees errors of its requests and nothing else, goes on when the host is well again, and finds
what it had flushed.

    host_faults_test.py PATH-OF-VMM PATH-OF-GUEST

What fails is real: a small tmpfs, a loop device over a file on it. Mounting them takes root.
"""
import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import vmm_process
from vmm_process import Running, eventually, listens, needs_kvm, read_until

PAGE = 4096
PAGES = 64
FINE, FAILED = "0", "1"  # VIRTIO 1.2, 5.2.6
GUEST = None


def page(letter):
    return letter.encode() * PAGE


class Guest:
    """One that does requests (tests/guests/disk_requests.S), with its disk."""

    def __init__(self, test, disk):
        self.running = Running(test, ["run", "--kernel", GUEST, "--boot", "flat", "--mem", "4M", "--transport", "mmio",
                                      "--disk", disk],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.test = test
        self.line()

    def line(self):
        said = read_until(self.running.process.stdout.fileno(), "\n")
        if not said.endswith("\n"):
            self.running.process.kill()
            self.test.fail(f"the guest is gone after {said!r}: {self.running.process.stderr.read().decode()}")
        return said.strip("\r\n")

    def ask(self, what, where=0, letter=" "):
        os.write(self.running.process.stdin.fileno(), (what + chr(ord("0") + where) + letter).encode())
        return self.line()

    def read(self, where):
        return self.ask("r", where)

    def write(self, where, letter):
        return self.ask("w", where, letter)

    def flush(self):
        return self.ask("f")

    def power_cut(self):
        self.running.close()


@needs_kvm
class HostFaults(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(dir="/var/tmp")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.image = self.folder / "image"

    def make_image(self):
        with self.image.open("wb") as file:
            file.truncate(PAGES * PAGE)

    def start(self, options="path={image}", **more):
        return Guest(self, options.format(image=self.image, folder=self.folder, **more))

    def small_file_system(self):
        """Puts the image on one that can be filled()."""
        if os.geteuid() != 0:
            self.skipTest("mounting a small file system takes root")
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512K", "vmm-test", self.folder],
                                 capture_output=True, text=True, check=False)
        if mounted.returncode != 0:
            self.skipTest(f"mount: {mounted.stderr.strip()}")
        # Lazily: a machine that has just been killed may still have the image open.
        self.addCleanup(subprocess.run, ["umount", "-l", self.folder], check=True)
        self.make_image()

    @contextlib.contextmanager
    def filled(self):
        """While this lasts the file system has no space."""
        filler = self.folder / "filler"
        with filler.open("wb", buffering=0) as file, self.assertRaises(OSError):
            while file.write(bytes(PAGE)) == PAGE:
                pass
        yield
        filler.unlink()

    def loop_device(self):
        """A block device that keeps its bytes in the image."""
        losetup = shutil.which("losetup", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if losetup is None:
            self.skipTest("there is no losetup: install the package mount")
        made = subprocess.run([losetup, "--find", "--show", self.image], capture_output=True, text=True, check=False)
        if made.returncode != 0:
            self.skipTest(f"losetup: {made.stderr.strip()}")
        device = made.stdout.strip()
        self.addCleanup(subprocess.run, [losetup, "--detach", device], check=True)
        return device

    def runs_out_of_space(self, options):
        """The guest, and what it did: pages 0 and 5 are 'a' and 'c'."""
        guest = self.start(options)
        self.assertEqual(guest.write(0, "a"), FINE)
        self.assertEqual(guest.flush(), FINE)
        with self.filled():
            self.assertEqual(guest.write(5, "b"), FAILED)
            self.assertEqual(guest.write(5, "b"), FAILED)
            self.assertEqual(guest.read(0), FINE + "a")
            self.assertEqual(guest.read(5), FINE + ".")
        self.assertEqual(guest.write(5, "c"), FINE)
        self.assertEqual(guest.flush(), FINE)
        self.assertEqual(guest.read(5), FINE + "c")
        return guest

    def check_image(self):
        content = self.image.read_bytes()
        self.assertEqual(content[:PAGE], page("a"))
        self.assertEqual(content[5 * PAGE:6 * PAGE], page("c"))

    def test_no_space_for_an_image(self):
        self.small_file_system()
        self.runs_out_of_space("path={image}").power_cut()
        self.check_image()

    def test_no_space_for_a_direct_image(self):
        self.small_file_system()
        self.runs_out_of_space("path={image},direct").power_cut()
        self.check_image()

    def test_no_space_for_an_overlay(self):
        self.small_file_system()
        self.runs_out_of_space("path={image},cow={folder}/overlay").power_cut()
        again = self.start("path={image},cow={folder}/overlay")
        self.assertEqual(again.read(0), FINE + "a")
        self.assertEqual(again.read(5), FINE + "c")
        self.assertEqual(self.image.read_bytes(), bytes(PAGES * PAGE))

    def test_no_space_behind_a_block_device(self):
        self.small_file_system()
        guest = self.start(f"path={self.loop_device()}")
        self.assertEqual(guest.write(0, "a"), FINE)
        self.assertEqual(guest.flush(), FINE)
        with self.filled():
            # The host's cache takes it; that there is no place for it the host finds out later.
            self.assertEqual(guest.write(5, "b"), FINE)
            self.assertEqual(guest.flush(), FAILED)
        # What the host forgot by then would be missing: no later success may speak for it.
        self.assertEqual(guest.flush(), FAILED)
        self.assertEqual(guest.read(0), FINE + "a")
        guest.power_cut()
        self.assertEqual(self.image.read_bytes()[:PAGE], page("a"))

    def test_no_space_behind_a_direct_block_device(self):
        self.small_file_system()
        guest = self.start(f"path={self.loop_device()},direct")
        self.assertEqual(guest.write(0, "a"), FINE)
        with self.filled():
            self.assertEqual(guest.write(5, "b"), FAILED)
        self.assertEqual(guest.write(5, "c"), FINE)
        self.assertEqual(guest.flush(), FINE)
        guest.power_cut()
        self.check_image()

    def test_medium_that_loses_its_end(self):
        self.small_file_system()
        guest = self.start(f"path={self.loop_device()},direct")
        self.assertEqual(guest.write(0, "a"), FINE)
        self.assertEqual(guest.write(50, "b"), FINE)
        os.truncate(self.image, 8 * PAGE)
        self.assertEqual(guest.read(50), FAILED)  # EIO
        self.assertEqual(guest.read(0), FINE + "a")
        os.truncate(self.image, PAGES * PAGE)
        self.assertEqual(guest.write(50, "c"), FINE)
        self.assertEqual(guest.read(50), FINE + "c")

    def image_that_is_truncated(self, options):
        self.make_image()
        guest = self.start(options)
        self.assertEqual(guest.write(0, "a"), FINE)
        self.assertEqual(guest.write(50, "b"), FINE)
        self.assertEqual(guest.flush(), FINE)
        os.truncate(self.image, 8 * PAGE)
        self.assertEqual(guest.read(50), FAILED)
        self.assertEqual(guest.read(0), FINE + "a")
        self.assertEqual(guest.flush(), FINE)
        return guest

    def test_truncated_image(self):
        guest = self.image_that_is_truncated("path={image}")
        self.assertEqual(guest.write(50, "c"), FINE)  # the file grows again
        self.assertEqual(guest.read(50), FINE + "c")
        self.assertEqual(guest.read(20), FINE + ".")
        self.assertEqual(guest.read(60), FAILED)

    def test_truncated_direct_image(self):
        guest = self.image_that_is_truncated("path={image},direct")
        self.assertEqual(guest.write(50, "c"), FINE)
        self.assertEqual(guest.read(50), FINE + "c")

    def test_truncated_image_of_an_overlay(self):
        self.make_image()
        guest = self.start("path={image},cow={folder}/overlay")
        self.assertEqual(guest.write(50, "b"), FINE)
        os.truncate(self.image, 8 * PAGE)
        self.assertEqual(guest.read(50), FINE + "b")  # the overlay's
        self.assertEqual(guest.read(51), FAILED)
        self.assertEqual(guest.read(7), FINE + ".")

    def storage_daemon(self):
        """Serves the image as a disk of another process; its socket's path."""
        program = shutil.which("qemu-storage-daemon")
        if program is None:
            self.skipTest("there is no qemu-storage-daemon: install the package qemu-utils")
        socket = self.folder / "socket"
        socket.unlink(missing_ok=True)
        daemon = subprocess.Popen([program, "--blockdev", f"driver=file,node-name=image,filename={self.image}",
                                   "--export", f"type=vhost-user-blk,id=disk,node-name=image,writable=on,"
                                   f"addr.type=unix,addr.path={socket}"])
        self.addCleanup(daemon.wait)
        self.addCleanup(daemon.kill)
        self.assertTrue(eventually(lambda: listens(socket)))
        return daemon, socket

    def test_killed_back_end(self):
        self.make_image()
        daemon, socket = self.storage_daemon()
        guest = self.start(f"vhost-user-blk={socket}")
        for i in range(100):
            letter = chr(ord("a") + i % 26)
            self.assertEqual(guest.write(i % PAGES, letter), FINE)
            self.assertEqual(guest.read(i % PAGES), FINE + letter)
        self.assertEqual(guest.flush(), FINE)
        daemon.kill()
        daemon.wait()
        self.assertEqual(guest.read(0), FAILED)
        self.assertEqual(guest.write(0, "z"), FAILED)
        self.assertEqual(self.image.read_bytes()[99 % PAGES * PAGE:][:PAGE], page(chr(ord("a") + 99 % 26)))

    def test_back_end_that_comes_back(self):
        self.make_image()
        daemon, socket = self.storage_daemon()
        guest = self.start(f"vhost-user-blk={socket},reconnect")
        self.assertEqual(guest.write(0, "a"), FINE)
        self.assertEqual(guest.flush(), FINE)
        daemon.kill()
        daemon.wait()
        self.storage_daemon()
        self.assertEqual(guest.read(0), FINE + "a")
        self.assertEqual(guest.write(1, "b"), FINE)

    def test_removed_image(self):
        self.make_image()
        guest = self.start()
        self.assertEqual(guest.write(0, "a"), FINE)
        with self.image.open("rb") as kept:
            self.image.unlink()
            self.assertEqual(guest.write(1, "b"), FINE)
            self.assertEqual(guest.flush(), FINE)
            self.assertEqual(guest.read(0), FINE + "a")
            guest.power_cut()
            self.assertEqual(kept.read(2 * PAGE), page("a") + page("b"))


if __name__ == "__main__":
    GUEST = os.path.abspath(sys.argv.pop(2))
    vmm_process.main()
