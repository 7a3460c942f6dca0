"""gdb on a Linux kernel, in one boot: breakpoints by symbol, steps, registers, the way on. See guest.py for the environment."""
import pathlib
import shutil
import subprocess
import tempfile
import unittest

import guest
from vmm_process import listens


class Linux(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        kernel = pathlib.Path(guest.requirements())
        if not shutil.which("gdb"):
            raise unittest.SkipTest("there is no gdb")
        vmlinux = kernel.with_name("vmlinux")
        if not vmlinux.exists():
            raise unittest.SkipTest(f"there is no {vmlinux} with the kernel's symbols")
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        path = f"{folder.name}/gdb"
        with guest.Machine(["--kernel", str(kernel), "--mem", "128M", "--no-reboot", "--gdb", f"unix:{path}", "--gdb-wait",
                            "--symbols", str(vmlinux), "--cmdline", "panic=-1"]) as machine:
            while not listens(path):
                pass
            # Planted at once, not when the guest goes on: the server can be asked about it.
            commands = ["set confirm off", "set pagination off", "set breakpoint always-inserted on", f"target remote {path}",
                        "break *start_kernel", "monitor info breakpoints", "continue",  # nothing is mapped there yet
                        "echo AT1 ", "print $rip == (long)&start_kernel", "print $cr0", "backtrace 3",
                        "stepi", "stepi", "echo AT2 ", "print $rip > (long)&start_kernel",
                        "x/4i $rip", "delete",
                        "watch *(int *)&system_state", "monitor info breakpoints", "continue",
                        "echo AT4 ", "print *(int *)&system_state", "info symbol $rip", "delete",
                        # Not the idle task's code: a kernel that has no preemption and always something to do does not get
                        # there before it panics.
                        "break *kernel_init", "monitor info breakpoints", "continue",
                        "echo AT3 ", "print $rip == (long)&kernel_init",
                        "monitor kaslr", "monitor xlate 0xffffffff81000000", "monitor info registers",
                        "info registers lstar", "delete", "detach"]
            words = ["gdb", "--batch", "-nx", str(vmlinux)]
            for command in commands:
                words += ["-ex", command]
            done = subprocess.run(words, capture_output=True, timeout=guest.PATIENCE_SECONDS)
            cls.text = done.stdout.decode() + done.stderr.decode()
            print(cls.text)
            machine.wait_for("Kernel panic|Run /")  # it goes on, to the end of what it can do without a root
            cls.console = machine.text

    def test_breakpoint_before_paging_is_met(self):
        self.assertRegex(self.text, r"AT1 ?\$\d+ = 1")
        self.assertIn("in a debug register", self.text)

    def test_steps_go_on_in_the_function(self):
        self.assertRegex(self.text, r"AT2 ?\$\d+ = 1")

    def test_breakpoint_in_mapped_code_is_planted_and_met(self):
        self.assertIn("planted at GPA", self.text)
        self.assertRegex(self.text, r"AT3 ?\$\d+ = 1")

    def test_variable_is_watched(self):
        self.assertRegex(self.text, r"AT4 ?\$\d+ = 1")  # SYSTEM_SCHEDULING
        self.assertIn("rest_init + ", self.text)

    def test_registers_and_translations_make_sense(self):
        self.assertIn("PG", self.text)
        self.assertIn("level 4 entry", self.text)
        self.assertRegex(self.text, r"lstar +0xffffffff8")
        self.assertIn("0x0 behind its symbols", self.text)
        self.assertIn("rip is kernel_init", self.text)

    def test_guest_goes_on_after_the_debugger(self):
        self.assertIn("Linux version", self.console)


if __name__ == "__main__":
    unittest.main(verbosity=2)
