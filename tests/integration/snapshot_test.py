"""Snapshots from outside: vmm snapshot, vmm restore, vmm inspect.

    snapshot_test.py PATH-OF-VMM
"""
import gzip
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import unittest

import vmm_process
from vmm_process import Guest, Running, eventually, needs_kvm, vmm

GOLDENS = pathlib.Path(__file__).resolve().parents[1] / "goldens"
# What a host says that has another processor than the one that a snapshot was made on.
OTHER_HOST = "this host's counts at|This host's KVM|KVM refuses the value|KVM_SET_(CPUID2|XSAVE|XCRS)"


class Usage(unittest.TestCase):
    def expect(self, status, text, *arguments):
        code, out, err = vmm(*arguments)
        self.assertEqual((code, out), (status, ""), err)
        self.assertIn(text, err)

    def test_what_the_snapshot_says_is_not_asked_for(self):
        self.expect(2, "--mem: the snapshot of --restore says what the machine is", "restore", "x.snap", "--mem", "1G")
        self.expect(2, "--kernel", "restore", "x.snap", "--kernel", "bzImage")

    def test_memory_that_comes_by_faults(self):
        self.expect(2, "there is no --restore", "run", "--restore-memory", "mapped")
        self.expect(2, "--restore-memory: 'lazy'", "restore", "x.snap", "--restore-memory", "lazy")
        self.expect(2, "record=FILE", "restore", "x.snap", "--restore-memory", "userfaultfd,later=x")

    def test_wrong_words(self):
        self.expect(2, "snapshot FILE", "ctl", "/nowhere", "snapshot")
        self.expect(2, "snapshot FILE", "snapshot", "/nowhere")

    def test_files_that_are_none(self):
        self.expect(1, "Open the snapshot /nowhere/x.snap", "restore", "/nowhere/x.snap")
        self.expect(1, "no snapshot", "restore", __file__)


@needs_kvm
class Snapshots(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.control = self.folder / "control"
        self.file = self.folder / "guest.snap"

    def start(self, guest, *options):
        running = Running(self, [*guest.arguments(self), "--control", self.control, *options],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertTrue(eventually(self.is_running))
        return running

    def is_running(self):
        code, out, _ = vmm("ctl", self.control, "--json", "status")
        return code == 0 and json.loads(out)["state"] == "running"

    def take(self):
        code, out, err = vmm("snapshot", self.control, self.file)
        self.assertEqual((code, out, err), (0, "", ""))

    def echo_from(self, running):
        running.process.stdin.write(b"a")
        running.process.stdin.flush()
        self.assertEqual(running.process.stdout.read(1), b"a")

    def test_guest_goes_on_here_and_there(self):
        running = self.start(Guest().echo())
        self.echo_from(running)
        self.take()
        self.echo_from(running)
        running.process.kill()
        running.process.wait()
        self.echo_from(self.restore(self.file))

    def restore(self, file, *options):
        return Running(self, ["restore", file, *options],
                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def test_interrupt_controllers_move(self):
        running = self.start(Guest().echo(), "--irqchip", "user")
        self.echo_from(running)
        self.take()
        for irqchip in ("split", "user", "kernel"):
            self.echo_from(self.restore(self.file, "--irqchip", irqchip))
        code, _, err = vmm("restore", self.file, "--irqchip", "none")
        self.assertEqual(code, 1)
        self.assertIn("cannot be given any, nor lose them", err)

    def test_increments(self):
        running = self.start(Guest().echo())
        self.take()
        chain = [self.file]
        for name in ("first.snap", "second.snap"):
            self.echo_from(running)
            code, out, err = vmm("snapshot", self.control, self.folder / name, "--base", chain[-1])
            self.assertEqual((code, out, err), (0, "", ""))
            chain.append(self.folder / name)
        running.process.kill()
        running.process.wait()
        for file in chain:
            self.echo_from(self.restore(file))
        inspected = [json.loads(vmm("inspect", file)[1]) for file in chain]
        self.assertNotIn("base", inspected[0]["file"])
        for base, increment in zip(inspected, inspected[1:]):
            self.assertEqual(increment["file"]["base"]["id"], base["file"]["id"])
            self.assertLess(increment["file"]["stored"], base["memory"]["stored"])
        self.assertEqual(inspected[1]["file"]["base"]["name"], "guest.snap")
        self.assertEqual(vmm("diff", chain[1], chain[1])[0], 0)
        self.assertEqual(vmm("diff", chain[0], chain[1])[0], 1)
        # They may move together, and not without the one that they are on.
        there = self.folder / "there"
        there.mkdir()
        for file in chain:
            file.rename(there / file.name)
        self.echo_from(self.restore(there / "second.snap"))
        (there / "guest.snap").unlink()
        code, _, err = vmm("restore", there / "second.snap")
        self.assertEqual(code, 1)
        self.assertIn("guest.snap", err)

    def test_increment_of_what_is_no_base(self):
        self.start(Guest().hang())
        self.take()
        for base, text in ((self.folder / "none.snap", "none.snap"), (__file__, "no snapshot"),
                           (self.file, "cannot take the place")):
            code, _, err = vmm("snapshot", self.control, self.file, "--base", base)
            self.assertEqual(code, 1)
            self.assertIn(text, err)
        self.assertEqual(vmm("inspect", self.file)[0], 0)
        self.assertTrue(self.is_running())

    def test_paused_guest_stays_paused(self):
        self.start(Guest().hang())
        self.assertEqual(vmm("ctl", self.control, "pause")[0], 0)
        self.take()
        code, out, _ = vmm("ctl", self.control, "--json", "status")
        self.assertEqual(json.loads(out)["state"], "paused")

    def test_file_that_cannot_be_written_is_said_and_changes_nothing(self):
        self.start(Guest().hang())
        code, _, err = vmm("snapshot", self.control, self.folder / "nowhere" / "x.snap")
        self.assertEqual(code, 1)
        self.assertIn("nowhere", err)
        self.assertTrue(self.is_running())

    def test_inspect_shows_it_as_json(self):
        self.start(Guest().hang())
        self.take()
        code, out, err = vmm("inspect", self.file)
        self.assertEqual((code, err), (0, ""))
        snapshot = json.loads(out)
        self.assertEqual(snapshot["memory"]["size"], 4 << 20)
        self.assertEqual(len(snapshot["machine"]["state"]["cpus"]), 1)
        self.assertIn("uart0", snapshot["devices"])

    def test_damaged_memory_is_found_by_inspect(self):
        self.start(Guest().hang())
        self.take()
        content = bytearray(self.file.read_bytes())
        content[4096 + 0x1000] ^= 1  # the guest's code
        self.file.write_bytes(content)
        code, _, err = vmm("inspect", self.file)
        self.assertEqual(code, 6)
        self.assertIn("damaged", err)

    def test_diff_tells_what_the_guest_did_in_between(self):
        # again: inc dword [0x100000]; jmp again
        self.start(Guest().raw([0xFF, 0x04, 0x25, 0, 0, 0x10, 0, 0xEB, 0xF7]))
        self.take()
        code, out, err = vmm("diff", self.file, self.file)
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(out, "memory: 0 of 1024 pages differ\n")
        before, self.file = self.file, self.folder / "after.snap"
        self.take()
        code, out, err = vmm("diff", before, self.file)
        self.assertEqual((code, err), (1, ""))
        self.assertIn("  0x000000100000-0x000000100fff  1 page\n", out)
        code, out, _ = vmm("diff", "--json", before, self.file)
        self.assertEqual(code, 1)
        difference = json.loads(out)
        self.assertEqual(difference["memory"]["ranges"], [{"address": "0x100000", "size": 4096}])
        symbols = self.folder / "System.map"
        symbols.write_text("0000000000001000 T code\n00000000000fff00 D other\n0000000000100000 D counter\n"
                           "0000000000100004 D behind\n", encoding="utf-8")
        code, out, err = vmm("diff", "--symbols", symbols, before, self.file)
        self.assertEqual((code, err), (1, ""))
        self.assertRegex(out, r"symbols: 1 differ\n  0x0000000000100000  counter  [1-4] bytes?\n$")
        code, out, _ = vmm("diff", "--json", "--symbols", symbols, before, self.file)
        self.assertEqual([symbol["name"] for symbol in json.loads(out)["symbols"]], ["counter"])
        code, out, err = vmm("diff", "--symbols", "/nowhere/map", before, self.file)
        self.assertEqual((code, out), (6, ""))
        self.assertIn("/nowhere/map", err)
        code, out, err = vmm("diff", before, "/nowhere/x.snap")
        self.assertEqual((code, out), (6, ""))
        self.assertIn("/nowhere/x.snap", err)

    def test_disks_have_to_be_given(self):
        disk = self.folder / "disk.img"
        disk.write_bytes(bytes(1 << 20))
        self.start(Guest().hang(), "--disk", f"path={disk}")
        self.take()
        code, _, err = vmm("restore", self.file)
        self.assertEqual(code, 2)
        self.assertIn("1 disks, and 0 are given", err)
        self.assertIn("--disk", err)

    def test_threads_are_those_of_the_host_that_goes_on(self):
        disk = self.folder / "disk.img"
        disk.write_bytes(bytes(1 << 20))
        queues = f"path={disk},queues=2"
        running = self.start(Guest().hang(), "--iothreads", "2", "--disk", f"{queues},iothread=2:1", "--net", "user")
        self.take()
        running.process.kill()
        running.process.wait()

        def go_on(*options):
            restored = self.restore(self.file, "--control", self.control, *options, "--net", "user")
            self.assertTrue(eventually(self.is_running))
            status = json.loads(vmm("ctl", self.control, "--json", "status")[1])
            restored.process.kill()
            restored.process.wait()
            return [device["queue_threads"] for device in status["disks"] + status["nets"]]

        self.assertEqual(go_on("--disk", queues), [[0, 0], [0, 0, 0]])
        self.assertEqual(go_on("--iothreads", "3", "--disk", f"{queues},iothread=3:2"), [[3, 2], [1, 1, 1]])

    def test_a_reset_ends_a_restored_guest(self):
        running = self.start(Guest().wait_for_input().reset(), "--no-reboot")
        self.take()
        running.process.kill()
        running.process.wait()
        code, _, err = vmm("restore", self.file, stdin=b"x")
        self.assertEqual(code, 10, err)

    def restore_by_faults(self, *lists, file=None):
        """Of a guest that resets when something arrives."""
        how = ",".join(("userfaultfd", *lists))
        # A command that refuses its options ends before it reads, and this process is not to end with it.
        self.addCleanup(signal.signal, signal.SIGPIPE, signal.signal(signal.SIGPIPE, signal.SIG_IGN))
        code, _, err = vmm("restore", file or self.file, "--restore-memory", how, stdin=b"x")
        if "vm.unprivileged_userfaultfd" in err:
            self.skipTest(err)
        return code, err

    def test_pages_are_recorded_and_brought_beforehand(self):
        self.start(Guest().wait_for_input().reset(), "--no-reboot")
        self.take()
        first, second = self.folder / "first.pages", self.folder / "second.pages"
        self.assertEqual(self.restore_by_faults(f"record={first}")[0], 10)
        header, snapshot, count, *pages = first.read_text().splitlines()
        self.assertEqual(header, "vmm page list 1")
        self.assertEqual(snapshot, "snapshot " + json.loads(vmm("inspect", self.file)[1])["file"]["id"])
        self.assertEqual(count, f"pages {len(pages)}")
        self.assertIn("1", pages)  # the guest's code
        self.assertEqual(self.restore_by_faults(f"prefetch={first}", f"record={second}")[0], 10)
        self.assertEqual(second.read_text(), first.read_text())
        # Not of this snapshot, not one that is there, none at all.
        self.file, before = self.folder / "later.snap", self.file
        self.take()
        for file, prefetch, text in ((self.file, first, "record another one"), (before, self.folder / "none", "none"),
                                     (before, before, "line 1")):
            code, err = self.restore_by_faults(f"prefetch={prefetch}", file=file)
            self.assertNotIn(code, (0, 10))
            self.assertIn(text, err)

    def test_damaged_memory_ends_the_guest_that_uses_it(self):
        self.start(Guest().wait_for_input().reset(), "--no-reboot")
        self.take()
        content = bytearray(self.file.read_bytes())
        content[4096 + 0x1000 + 200] ^= 1  # behind the guest's code, in its page
        self.file.write_bytes(content)
        code, err = self.restore_by_faults()
        self.assertNotIn(code, (0, 10))
        self.assertIn("damaged", err)
        self.assertIn(str(self.file), err)


@needs_kvm
class Goldens(unittest.TestCase):
    """Files of earlier versions (tests/goldens/make.py): guests that send back what arrives."""

    def test_all_can_be_restored(self):
        files = sorted(GOLDENS.glob("*.snap.gz"))
        self.assertGreater(len(files), 0)
        for packed in files:
            with self.subTest(packed.name), tempfile.TemporaryDirectory() as folder:
                file = pathlib.Path(folder) / "golden.snap"
                file.write_bytes(gzip.decompress(packed.read_bytes()))
                code, _, err = vmm("inspect", file)
                self.assertEqual((code, err), (0, ""))
                running = Running(self, ["restore", file],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                running.process.stdin.write(b"golden")
                running.process.stdin.flush()
                answer = running.process.stdout.read(6)
                if answer == b"" and re.search(OTHER_HOST, said := running.process.stderr.read().decode()):
                    self.skipTest(f"{packed.name} is of another host: {said}")
                self.assertEqual(answer, b"golden")
                running.process.kill()
                running.process.wait()


if __name__ == "__main__":
    vmm_process.main()
