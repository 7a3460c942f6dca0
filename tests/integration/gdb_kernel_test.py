"""gdb on a Linux kernel with debug information at an address chosen at random, in one boot: source lines from the kernel's first
function on, and in user space the commands that the kernel brings for gdb, and those that the server has for Linux. See guest.py for
the environment; and

    GUEST_KERNEL_DEBUG   the kernel to boot; build/guest-kernel-debug/bzImage when it is not set, where
                         scripts/guest-kernel.sh --debug puts it, with vmlinux, vmlinux-gdb.py and crc4.ko beside it
"""
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import guest
from vmm_process import listens

KERNEL = pathlib.Path(os.environ.get("GUEST_KERNEL_DEBUG", guest.ROOT / "build/guest-kernel-debug/bzImage"))


class Kernel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        guest.requirements()
        if not shutil.which("gdb"):
            raise unittest.SkipTest("there is no gdb")
        if not KERNEL.exists():
            raise unittest.SkipTest(f"there is no guest kernel {KERNEL}: run scripts/guest-kernel.sh --debug")
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.socket = pathlib.Path(folder.name) / "gdb"
        initramfs = guest.make_initramfs(folder.name, "--shell", "--add", f"{KERNEL.with_name('crc4.ko')}:crc4.ko")
        control, snapshot = f"{folder.name}/control", f"{folder.name}/snapshot"
        with guest.Machine(["--kernel", str(KERNEL), "--initrd", str(initramfs), "--mem", "256M", "--kaslr", "--gdb", f"unix:{cls.socket}",
                            "--gdb-wait", "--symbols", str(KERNEL.with_name("vmlinux")), "--control", control]) as machine:
            while not listens(cls.socket):
                pass
            cls.early = cls.gdb("monitor kaslr", "break start_kernel", "continue", "next", "next", "next", "next", "info symbol $pc",
                                "delete", "break kernel_init", "continue", "backtrace", "delete", "detach")
            machine.wait_for(guest.PROMPT)
            cls.late = cls.gdb("lx-version", "lx-ps", "lx-dmesg", "echo BANNER:", "print linux_banner", "monitor kaslr", "detach")
            slide = re.search(r"add-symbol-file vmlinux (-o .*)", cls.late)[1]
            cls.moved = cls.gdb("symbol-file", f"add-symbol-file {KERNEL.with_name('vmlinux')} {slide}",
                                "echo CURRENT:", "print $lx_current().pid >= 0", "echo RUNQUEUE:", "print $lx_per_cpu(\"runqueues\", 0).cpu",
                                "detach")
            # It says so, and loads the kernel's own symbols anew; no module is loaded.
            cls.modules = cls.gdb("lx-symbols", "detach")
            machine.type("busybox insmod crc4.ko && sleep 1000 &\necho still $((6 * 7))\n")
            machine.wait_for("still 42")
            while "crc4" not in (told := cls.gdb("monitor lsmod", "detach")):
                pass
            cls.named = told + cls.gdb("monitor dmesg", "monitor dmesg 1", "monitor ps", "detach")
            subprocess.run([guest.program(), "snapshot", control, snapshot], check=True)
            cls.core = f"{folder.name}/core"
            subprocess.run([guest.program(), "core", control, cls.core], check=True)
        # The same guest, of which nobody has a file now.
        with guest.Machine(["--restore", snapshot, "--gdb", f"unix:{cls.socket}2"]) as machine:
            while not listens(f"{cls.socket}2"):
                pass
            cls.nameless = cls.gdb_alone(f"{cls.socket}2", "monitor lsmod", "monitor dmesg", "monitor dmesg 1", "monitor ps",
                                         "detach")

    @classmethod
    def gdb(cls, *commands):
        words = ["gdb", "--batch", "-nx", "-ex", "set pagination off", "-ex", "set confirm off", "-ex",
                 f"set remotetimeout {guest.PATIENCE_SECONDS}", str(KERNEL.with_name("vmlinux")), "-ex",
                 f"source {KERNEL.with_name('vmlinux-gdb.py')}", "-ex", f"target remote {cls.socket}"]
        for command in commands:
            words += ["-ex", command]
        done = subprocess.run(words, capture_output=True, timeout=guest.PATIENCE_SECONDS)
        text = done.stdout.decode() + done.stderr.decode()
        print(text)
        return text

    @classmethod
    def gdb_alone(cls, socket, *commands):
        words = ["gdb", "--batch", "-nx", "-ex", "set pagination off", "-ex", f"set remotetimeout {guest.PATIENCE_SECONDS}",
                 "-ex", f"target remote {socket}"]
        for command in commands:
            words += ["-ex", command]
        done = subprocess.run(words, capture_output=True, timeout=guest.PATIENCE_SECONDS)
        print(done.stdout.decode(), done.stderr.decode())
        return done.stdout.decode() + done.stderr.decode()

    def test_slide_is_known_before_the_first_instruction(self):
        self.assertRegex(self.early, "The kernel lies 0x[1-9a-f][0-9a-f]* behind its symbols")

    def test_source_lines_of_the_first_function(self):
        self.assertRegex(self.early, r"Breakpoint 1, start_kernel \(\) at init/main.c:\d+")
        lines = [int(line) for line in re.findall(r"^(\d+)\s+(?:in )?init/main.c", self.early, re.M)]
        self.assertGreaterEqual(len(lines), 5, self.early)
        self.assertEqual(lines[:5], sorted(set(lines[:5])), "each step is on a later line")
        self.assertIn("start_kernel + ", self.early)

    def test_breakpoint_by_name_and_callers(self):
        self.assertRegex(self.early, r"Breakpoint 2, kernel_init ")
        self.assertRegex(self.early, r"#1 .* in ret_from_fork \(\)")

    def test_the_kernels_own_commands(self):
        self.assertRegex(self.late, r"0x[0-9a-f]+ +0 +swapper/0")
        self.assertRegex(self.late, r"0x[0-9a-f]+ +1 +init")
        self.assertRegex(self.late, r"\[ +\d+\.\d+\] Linux version 6\.")
        self.assertRegex(self.late, r'BANNER:\$1 = .*"Linux version 6\.')
        self.assertIn("loading vmlinux", self.modules)

    def check_linux(self, told):
        lines = re.findall(r"^\[ *\d+\.\d{6}\] .*$", told, re.M)
        self.assertRegex(lines[0], r"\] Linux version 6\.")
        self.assertGreater(len(lines), 50, "a boot says more than that")
        self.assertRegex(told, r"\n\[ .*Run /init as init process")
        self.assertEqual(lines[-1], lines[-2], "the last one alone was asked for as well")
        self.assertNotIn(lines[-1], lines[:-2])
        self.assertRegex(told, r"0x[0-9a-f]+ +0 +0 +0 +\d+.? [RI] \[swapper/0\]")
        self.assertRegex(told, r"0x[0-9a-f]+ +1 +1 +0 +\d+.? S init")
        self.assertRegex(told, r"0x[0-9a-f]+ +2 +2 +0 +\d+.? S \[kthreadd\]")
        shell = re.search(r"0x[0-9a-f]+ +(\d+) +\d+ +\d+ +\d+.? . (?:sh|cttyhack|busybox)\n", told)
        self.assertRegex(told, rf"0x[0-9a-f]+ +\d+ +\d+ +{shell[1]} +\d+.? . ", "the shell has a child")
        self.assertRegex(told, r"0xffffffff[0-9a-f]{8} +\d+ +0 crc4\n")

    def test_log_tasks_and_modules_by_symbols(self):
        self.check_linux(self.named)

    def test_log_tasks_and_modules_by_memory_alone(self):
        if "CONFIG_DEBUG_INFO_BTF=y" not in KERNEL.with_name("config").read_text():
            self.skipTest("the kernel was built without BTF: pahole (package dwarves) was missing")
        self.check_linux(self.nameless)

    def test_variables_of_a_cpu(self):
        self.assertRegex(self.moved, r"CURRENT:\$1 = 1")
        self.assertRegex(self.moved, r"RUNQUEUE:\$2 = 0")

    def open_core(self, tool, arguments, commands):
        """What a tool of Debian's says of the guest's core, whose kernel lies at an address chosen at random."""
        if not shutil.which(tool):
            self.skipTest(f"there is no {tool}")
        run = subprocess.run([tool, *arguments], input=commands, capture_output=True, text=True, timeout=300)
        return run.stdout + run.stderr

    def test_core_opens_in_drgn(self):
        with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
            script.write("from drgn.helpers.linux.pid import for_each_task\n"
                         "print(prog['linux_banner'].string_().decode())\n"
                         "print([task.comm.string_().decode() for task in for_each_task(prog)])\n")
            script.flush()
            said = self.open_core("drgn", ["-q", "-c", self.core, "-s", str(KERNEL.with_name("vmlinux")), script.name], "")
        self.assertIn("Linux version", said)
        self.assertIn("'kthreadd'", said)

    def test_core_opens_in_crash(self):
        # Crash 8.0.2 does not know this kernel's slab allocator.
        said = self.open_core("crash", ["-s", "--no_kmem_cache", str(KERNEL.with_name("vmlinux")), self.core], "sys\nlog\nquit\n")
        self.assertRegex(said, r"CPUS: 1\n")
        self.assertRegex(said, r"MEMORY: 25\d\.\d MB")
        self.assertIn("Run /init as init process", said)


if __name__ == "__main__":
    unittest.main(verbosity=2)
