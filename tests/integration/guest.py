"""Machines for integration tests: the vmm program with a kernel and an initramfs, driven from outside.

From the environment:
    VMM            the program under test
    GUEST_KERNEL   the kernel to boot; build/guest-kernel/bzImage when it is not set, where
                   scripts/guest-kernel.sh puts it
"""
import os
import pathlib
import pty
import re
import select
import subprocess
import tempfile
import termios
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMPT = "guest# "
# A machine that takes this long has hung, on the slowest host.
PATIENCE_SECONDS = 1800


def requirements():
    """Skips the calling test class when something is missing that is not its subject."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise unittest.SkipTest(f"/dev/kvm cannot be used: {error.strerror}") from None
    kernel = os.environ.get("GUEST_KERNEL", str(ROOT / "build/guest-kernel/bzImage"))
    if not os.path.exists(kernel):
        raise unittest.SkipTest(f"there is no guest kernel {kernel}: run scripts/guest-kernel.sh")
    return kernel


def program():
    return os.environ["VMM"]


def make_initramfs(folder, *options):
    path = pathlib.Path(folder) / "initramfs.cpio"
    subprocess.run([ROOT / "scripts/initramfs.sh", *options, path], check=True)
    return path


class Machine:
    """One running vmm process, and all that its guest has said so far."""

    def __init__(self, arguments, terminal=False):
        self.text = ""
        self.arrivals = []  # (length of the text, time.monotonic()) whenever some came
        self.terminal = None
        self.settings_before = None
        self.errors = tempfile.TemporaryFile()
        if terminal:
            self.terminal, slave = pty.openpty()
            self.settings_before = termios.tcgetattr(slave)
            # A session of its own whose terminal this is: as if somebody sat there.
            self.process = subprocess.Popen(
                ["setsid", "--ctty", "--wait", program(), "run", *arguments],
                stdin=slave, stdout=slave, stderr=self.errors, close_fds=True,
            )
            self.slave = slave
            self.output, self.input = self.terminal, self.terminal
        else:
            self.process = subprocess.Popen(
                [program(), "run", *arguments],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
            )
            self.output, self.input = self.process.stdout.fileno(), self.process.stdin.fileno()
        self.deadline = time.monotonic() + PATIENCE_SECONDS

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            if stream:
                stream.close()
        if self.terminal is not None:
            os.close(self.terminal)
            os.close(self.slave)

    def type(self, text):
        os.write(self.input, text.encode())

    def close_input(self):
        self.process.stdin.close()

    def _read_some(self):
        """False at the end of the output."""
        ready, _, _ = select.select([self.output], [], [], 1)
        if not ready:
            # A terminal has no end while we hold its other side.
            return self.process.poll() is None
        try:
            piece = os.read(self.output, 65536)
        except OSError:
            return False
        text = piece.decode(errors="replace")
        self.text += text
        self.arrivals.append((len(self.text), time.monotonic()))
        # What the guest says goes to the test's log as it comes.
        print(text.replace("\r", ""), end="", flush=True)
        return bool(piece)

    def arrival(self, offset):
        """When the character at this offset of the text came, as time.monotonic()."""
        return next(when for length, when in self.arrivals if length > offset)

    def wait_for(self, pattern, since=0):
        """Reads until the regular expression matches what was said from offset `since` on."""
        while not (match := re.search(pattern, self.text[since:])):
            if not self._read_some():
                raise AssertionError(f"the machine ended without {pattern!r}; {self.diagnosis()}")
            if time.monotonic() > self.deadline:
                raise AssertionError(f"no {pattern!r} within {PATIENCE_SECONDS} s; {self.diagnosis()}")
        return match

    def wait_for_end(self):
        """Reads to the end of the process and returns its exit status."""
        while self._read_some():
            if time.monotonic() > self.deadline:
                raise AssertionError(f"still running after {PATIENCE_SECONDS} s; {self.diagnosis()}")
        return self.process.wait(timeout=60)

    def stderr(self):
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace")

    def settings_now(self):
        return termios.tcgetattr(self.slave)

    def diagnosis(self):
        return f"stderr: {self.stderr()!r}; the guest's last words: {self.text[-2000:]!r}"
