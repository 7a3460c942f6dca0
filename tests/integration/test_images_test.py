"""vmm test, and the --result of vmm run that it stands on, from outside.

    test_images_test.py PATH-OF-VMM
"""
import json
import pathlib
import signal
import subprocess
import tempfile
import unittest
import xml.etree.ElementTree

import vmm_process
from vmm_process import Guest, Running, eventually, needs_kvm, vmm


class Images(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def image(self, name, guest):
        path = self.folder / name
        path.write_bytes(guest.code)
        return path


FLAT = ("--", "--boot", "flat", "--mem", "4M")


@needs_kvm
class TestCommand(Images):
    def test_all_pass(self):
        images = [self.image("exit", Guest().say("fine").exit(0)),
                  self.image("power-off", Guest().raw([0x66, 0xBA, 0x04, 0x06, 0x66, 0xB8, 0x00, 0x34, 0x66, 0xEF]).hang())]
        code, out, err = vmm("test", *images, *FLAT)
        self.assertEqual((code, err), (0, "vmm test: 2 passed, 0 failed\n"), out)
        lines = out.splitlines()
        self.assertEqual(lines[:2], ["TAP version 13", "1..2"])
        for number, (line, image) in enumerate(zip(lines[2:], images, strict=True), 1):
            self.assertRegex(line, rf"^ok {number} - {image} # time=\d+ms$")

    def test_each_failure_says_why(self):
        images = {
            "value": (Guest().say("before the end").exit(3), "with the value 0x3"),
            "reset": (Guest().reset(), "guest reset"),
            "fault": (Guest().raw([0x0F, 0x01, 0x1C, 0x25, 0, 0x20, 0, 0, 0x0F, 0x0B]), "triple fault"),
            "empty": (Guest(), "is empty"),
        }
        paths = [self.image(name, guest) for name, (guest, _) in images.items()]
        report = self.folder / "report.xml"
        code, out, err = vmm("test", "--jobs", "2", "--junit", report, *paths, self.folder / "none", *FLAT)
        self.assertEqual((code, err), (1, "vmm test: 0 passed, 5 failed\n"), out)
        told = out.split("\nnot ok ")[1:]
        for path, (_, text), block in zip(paths, images.values(), told):
            self.assertIn(f" - {path} ", block)
            self.assertIn(text, block.split("message: ")[1].splitlines()[0])
        self.assertIn("  console: |2\n    before the end\n", told[0])
        self.assertIn("No such file", told[4])
        suite = xml.etree.ElementTree.parse(report).getroot().find("testsuite")
        self.assertEqual((suite.get("tests"), suite.get("failures")), ("5", "5"))
        self.assertEqual([case.get("name") for case in suite], [*map(str, paths), str(self.folder / "none")])
        self.assertIn("0x3", suite[0].find("failure").get("message"))
        self.assertEqual(suite[0].find("system-out").text, "before the end")

    def test_endless_guest_is_ended(self):
        code, out, _ = vmm("test", "--timeout", "0.5", self.image("endless", Guest().hang()), *FLAT)
        self.assertEqual(code, 1)
        self.assertIn("guest ended by --timeout", out)

    def test_another_value_may_be_the_good_one(self):
        good, zero = self.image("good", Guest().exit(0x10)), self.image("zero", Guest().exit(0))
        code, out, _ = vmm("test", "--pass-value", "16", good, zero, *FLAT)
        self.assertEqual(code, 1)
        self.assertRegex(out, r"(?m)^ok 1 -")
        self.assertRegex(out, r"(?m)^not ok 2 -")

    def test_what_guests_write_without_end_is_bounded(self):
        flood = self.image("flood", Guest().flood("x", 100))
        report = self.folder / "report.xml"
        code, out, err = vmm("test", "--junit", report, flood, *FLAT)
        self.assertEqual(code, 0, out + err)
        text = xml.etree.ElementTree.parse(report).getroot().find("testsuite")[0].find("system-out").text
        self.assertEqual(text, "x" * (256 << 10))

    def test_interruption_ends_the_guests(self):
        running = Running(self, ["test", self.image("endless", Guest().say("up").hang()), *FLAT, "--control", self.folder / "control"],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.assertTrue(eventually(lambda: vmm("ctl", self.folder / "control", "status")[0] == 0))
        running.signal(signal.SIGINT)
        self.assertEqual(running.wait(), -signal.SIGINT)
        self.assertTrue(eventually(lambda: not (self.folder / "control").exists()))

    def test_report_that_cannot_be_is_known_at_once(self):
        code, out, err = vmm("test", "--junit", "/nowhere/report.xml", self.image("a", Guest().exit(0)), *FLAT)
        self.assertEqual((code, out), (1, ""))
        self.assertIn("/nowhere/report.xml", err)


@needs_kvm
class Result(Images):
    def run_to_its_end(self, guest, *options, status):
        path = self.folder / "result.json"
        code, _, err = vmm("run", "--kernel", self.image("guest", guest), *FLAT[1:], "--result", path, *options)
        self.assertEqual(code, status, err)
        return json.loads(path.read_text())

    def test_value_of_the_guest(self):
        result = self.run_to_its_end(Guest().exit(0), status=1)
        self.assertEqual((result["reason"], result["value"], result["exit_status"]), ("debug exit", 0, 1))

    def test_crash_with_its_report(self):
        result = self.run_to_its_end(Guest().raw([0x0F, 0x01, 0x1C, 0x25, 0, 0x20, 0, 0, 0x0F, 0x0B]), status=18)
        self.assertEqual((result["reason"], result["exit_status"]), ("triple fault", 18))
        self.assertIn("rip", result["report"].lower())
        self.assertNotIn("value", result)

    def test_error_before_the_guest_runs(self):
        result = self.run_to_its_end(Guest().hang(), "--disk", "path=/nowhere/disk", status=2)
        self.assertEqual((result["reason"], result["exit_status"]), ("error", 2))
        self.assertIn("/nowhere/disk", result["message"])

    def test_place_that_cannot_be_written(self):
        code, _, err = vmm("run", "--kernel", self.image("guest", Guest().exit(0)), *FLAT[1:], "--result", "/nowhere/result")
        self.assertEqual(code, 1)
        self.assertIn("--result", err)
        code, _, err = vmm("run", "--kernel", self.image("guest", Guest().exit(4)), *FLAT[1:], "--result", "/dev/full")
        self.assertEqual(code, 1)
        self.assertIn("/dev/full", err)


class Usage(Images):
    def test_wrong_options_are_refused_once(self):
        for arguments in ((), ("a", "--jobs", "0"), ("a", "--timeout", "x"), ("a", "b", "--", "--nothing")):
            code, out, err = vmm("test", *arguments)
            self.assertEqual((code, out), (2, ""))
            self.assertEqual(err.count("\n"), 2, err)

    def test_no_kvm_ends_it(self):
        # A device that is none of KVM's in the place of /dev/kvm, for one command.
        without = ["unshare", "--map-root-user", "--mount", "sh", "-c",
                   '{ [ ! -e /dev/kvm ] || mount --bind /dev/null /dev/kvm; } 2>/dev/null || exit 99; exec "$@"', "sh"]
        done = subprocess.run([*without, vmm_process.VMM, "test", self.image("a", Guest().exit(0)), *FLAT],
                              capture_output=True, text=True, timeout=vmm_process.PATIENCE)
        if done.returncode == 99 or done.stderr.startswith("unshare"):
            self.skipTest("no mount namespace of one's own here")
        self.assertEqual(done.returncode, 4, done.stderr)
        self.assertIn("Bail out!", done.stdout)
        self.assertNotIn("ok 1", done.stdout)


if __name__ == "__main__":
    vmm_process.main()
