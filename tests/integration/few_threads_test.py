"""The command on hosts that make few threads, or none: it does with fewer, or says so and ends.

    few_threads_test.py PATH-OF-VMM PATH-OF-LIBFEW_THREADS
"""
import os
import pathlib
import sys
import tempfile
import unittest

import vmm_process
from vmm_process import Guest, needs_kvm, vmm

LIBRARY = ""
OUT_OF_TIME = 26
MOST = 20  # more than a machine with a disk and its sockets ever has


@needs_kvm
class FewThreads(unittest.TestCase):
    def run_with(self, threads, arguments):
        os.environ.update(LD_PRELOAD=LIBRARY, THREADS=str(threads))
        self.addCleanup(os.environ.pop, "THREADS", None)
        try:
            return vmm(*arguments)
        finally:
            del os.environ["LD_PRELOAD"]

    def check(self, arguments):
        """With each number of threads: an error in one line, until there are enough."""
        for threads in range(MOST):
            with self.subTest(threads=threads):
                status, _, messages = self.run_with(threads, arguments)
                if status == OUT_OF_TIME:
                    self.assertGreater(threads, 1)  # the guest's CPU and what ends it
                    return
                self.assertEqual(status, 1, messages)
                errors = [line for line in messages.splitlines() if "Start the thread of" in line]
                self.assertEqual(len(errors), 1, messages)
                self.assertIn("pids.max", errors[0])
        self.fail("it never had enough")

    def test_machine_with_all_that_has_threads(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            image = folder / "image"
            image.write_bytes(bytes(1 << 20))
            guest = Guest().say("!").hang().arguments(self)
            self.check(guest + ["--timeout", "1", "--cpus", "2", "--disk", f"path={image}", "--control",
                                folder / "control", "--gdb", f"unix:{folder / 'gdb'}"])
            self.assertEqual(sorted(path.name for path in folder.iterdir()), ["image"])

    def test_memory_that_is_allocated_before(self):
        guest = Guest().say("!").hang().arguments(self)
        self.check(guest + ["--timeout", "1", "--mem-prealloc"])


if __name__ == "__main__":
    LIBRARY = os.path.abspath(sys.argv.pop(2))
    vmm_process.main()
