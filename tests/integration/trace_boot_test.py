"""A Linux guest's system calls, exits, interrupts and requests as they are traced, in one boot. See guest.py for the environment."""
import pathlib
import re
import tempfile
import unittest

import guest

SCRIPT = """\
echo traced-line
cat /nowhere
"""


class Traced(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        kernel = pathlib.Path(guest.requirements())
        vmlinux = kernel.with_name("vmlinux")
        with tempfile.TemporaryDirectory() as folder:
            script = pathlib.Path(folder) / "script"
            script.write_text(SCRIPT, encoding="utf-8")
            initramfs = guest.make_initramfs(folder, "--script", script)
            arguments = ["--kernel", str(kernel), "--initrd", str(initramfs), "--mem", "128M", "--rng",
                         "--trace=syscalls,pio,irq,requests"]
            cls.named = vmlinux.exists()
            if cls.named:
                arguments += ["--symbols", str(vmlinux)]
            with guest.Machine(arguments) as machine:
                machine.close_input()
                cls.status = machine.wait_for_end()
                cls.console = machine.text
                cls.stderr = machine.stderr()
        cls.calls = [line.partition(" syscall ")[2] for line in cls.stderr.splitlines() if " syscall " in line]

    def test_guest_runs_to_its_end(self):
        self.assertEqual(self.status, 0, self.stderr[-2000:])
        self.assertIn("traced-line", self.console)

    def assert_called(self, pattern):
        if not any(re.match(pattern, call) for call in self.calls):
            self.fail(f"no call like {pattern!r} among {len(self.calls)}: {self.calls[:20]}")

    def test_programs_are_seen(self):
        self.assert_called(r'execve\("/bin/sh", \["/bin/sh", "/script"\], 0x[0-9a-f]+\) rip 0x[0-9a-f]+$')

    def test_what_is_written_is_seen(self):
        self.assert_called(r'write\(1, "traced-line\\n", 12\) rip ')

    def test_failed_call_is_seen(self):
        self.assert_called(r'open(at)?\((AT_FDCWD, )?"/nowhere", ')

    def test_results_are_seen_where_the_kernel_is_executed_here(self):
        results = [call for call in self.calls if re.match(r"\w+ = ", call)]
        if not results:
            self.skipTest("this host executes the guest's kernel")
        self.assert_called(r"write = 12 rip ")
        self.assert_called(r"open(at)? = -2 ENOENT rip ")
        self.assert_called(r"(mmap|brk) = 0x[0-9a-f]+ rip ")

    def told(self, pattern):
        return [line for line in self.stderr.splitlines() if re.match(f"vmm: {pattern}$", line)]

    def test_requests_are_answered(self):
        requests = self.told(r"rng0 request queue 0 head \d+")
        answers = self.told(r"rng0 answer queue 0 head \d+ written [1-9]\d*")
        self.assertTrue(requests)
        self.assertIn(len(requests) - len(answers), (0, 1))  # one may wait when the guest ends

    def test_interrupts_are_told(self):
        vectors = {line.split()[-1] for line in self.told(r"irq message 0xfee\w+ data 0x\w+ vector 0x\w+")}
        self.assertTrue(vectors)
        given = {line.split()[4] for line in self.told(r"vcpu0 irq vector 0x\w+( rip 0x\w+( <.*>)?)?")}
        if given:  # by local APICs that are not KVM's
            self.assertLessEqual(vectors, given)
            if self.named:
                self.assertTrue(self.told(r"vcpu0 irq vector 0x\w+ rip 0xf\w+ <[a-z_]\w+\+0x[0-9a-f]+>"))

    def test_exits_are_told_with_the_places_they_came_from(self):
        exits = [line for line in self.stderr.splitlines() if line.startswith("vmm: vcpu0 pio ")]
        self.assertTrue(exits)
        self.assertRegex(exits[-1], r" rip 0x[0-9a-f]{16}( |$)")
        if self.named:
            self.assertRegex(exits[-1], r" rip 0x[0-9a-f]+ [a-z_]\w+\+0x[0-9a-f]+$")


if __name__ == "__main__":
    unittest.main(verbosity=2)
