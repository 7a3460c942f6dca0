"""Running the command in tests: on pipes, or on a terminal of its own."""
import fcntl
import os
import select
import signal
import subprocess
import sys
import tempfile
import termios
import time
import unittest

VMM = os.environ.get("VMM", "vmm")
PATIENCE = 60  # seconds until a test gives up; machines may be busy

needs_kvm = unittest.skipUnless(
    os.access("/dev/kvm", os.R_OK | os.W_OK), "needs /dev/kvm, readable and writable"
)


def vmm(*arguments, stdin=b"", timeout=PATIENCE):
    """Runs the command to its end: status, stdout and stderr as text."""
    done = subprocess.run([VMM, *map(str, arguments)], input=stdin, capture_output=True, timeout=timeout)
    return done.returncode, done.stdout.decode("latin-1"), done.stderr.decode("latin-1")


class Guest:
    """Machine code of a flat guest for 64-bit mode, put together instruction by instruction."""

    def __init__(self):
        self.code = b""

    def raw(self, code):
        self.code += bytes(code)
        return self

    def out(self, port, value):
        # mov dx, port; mov al, value; out dx, al
        return self.raw([0x66, 0xBA, port & 0xFF, port >> 8, 0xB0, value, 0xEE])

    def say(self, text):
        for byte in text.encode():
            self.out(0x3F8, byte)
        return self

    def say_port(self, port):
        # mov dx, port; in al, dx; mov dx, 0x3f8; out dx, al
        return self.raw([0x66, 0xBA, port & 0xFF, port >> 8, 0xEC, 0x66, 0xBA, 0xF8, 0x03, 0xEE])

    def wait_for_input(self):
        # mov dx, 0x3fd; wait: in al, dx; test al, 1; jz wait; mov dx, 0x3f8; in al, dx
        return self.raw([0x66, 0xBA, 0xFD, 0x03, 0xEC, 0xA8, 0x01, 0x74, 0xFB, 0x66, 0xBA, 0xF8, 0x03, 0xEC])

    def exit(self, value):
        return self.out(0xF4, value)

    def reset(self):
        return self.out(0x64, 0xFE).hang()  # the keyboard controller pulls the reset line

    def eject(self):
        """Lets go of whatever PCI device is to go, for ever."""
        return self.raw(
            [0x66, 0xBA, 0x04, 0xAE]  # again: mov dx, 0xae04 (slots whose function is to go)
            + [0xED]  # in eax, dx
            + [0x85, 0xC0]  # test eax, eax
            + [0x74, 0xF7]  # jz again
            + [0x66, 0xBA, 0x08, 0xAE]  # mov dx, 0xae08 (eject)
            + [0xEF]  # out dx, eax
            + [0xEB, 0xF0]  # jmp again
        )

    def hang(self):
        return self.raw([0xEB, 0xFE])  # jmp $

    def halt(self):
        return self.raw([0xFA, 0xF4])  # cli; hlt

    def echo(self):
        """Sends back what arrives on COM1, for ever."""
        return self.raw(
            [0x66, 0xBA, 0xFD, 0x03]  # again: mov dx, 0x3fd (LSR)
            + [0xEC]  # wait: in al, dx
            + [0xA8, 0x01]  # test al, 1 (a byte is there)
            + [0x74, 0xFB]  # jz wait
            + [0x66, 0xBA, 0xF8, 0x03]  # mov dx, 0x3f8
            + [0xEC]  # in al, dx
            + [0x88, 0xC4]  # mov ah, al
            + [0x66, 0xBA, 0xFD, 0x03]  # mov dx, 0x3fd
            + [0xEC]  # busy: in al, dx
            + [0xA8, 0x20]  # test al, 0x20 (the transmitter is empty)
            + [0x74, 0xFB]  # jz busy
            + [0x88, 0xE0]  # mov al, ah
            + [0x66, 0xBA, 0xF8, 0x03]  # mov dx, 0x3f8
            + [0xEE]  # out dx, al
            + [0xEB, 0xDE]  # jmp again
        )

    def repeat(self, byte, count):
        """Sends one byte `count` times, waiting for the transmitter."""
        return self.raw(
            [0xB9, *count.to_bytes(4, "little")]  # mov ecx, count
            + [0x66, 0xBA, 0xFD, 0x03]  # again: mov dx, 0x3fd
            + [0xEC]  # busy: in al, dx
            + [0xA8, 0x20]  # test al, 0x20
            + [0x74, 0xFB]  # jz busy
            + [0x66, 0xBA, 0xF8, 0x03]  # mov dx, 0x3f8
            + [0xB0, ord(byte)]  # mov al, byte
            + [0xEE]  # out dx, al
            + [0xFF, 0xC9]  # dec ecx
            + [0x75, 0xEC]  # jnz again
        )

    def flood(self, byte, pages):
        """Sends 4 KiB of one byte, over and over, then ends with the value 0."""
        code = (
            [0xBB, *pages.to_bytes(4, "little")]  # mov ebx, pages
            + [0x48, 0x8D, 0x35, 29, 0, 0, 0]  # again: lea rsi, [data]
            + [0xB9, 0, 0x10, 0, 0]  # mov ecx, 4096
            + [0x66, 0xBA, 0xF8, 0x03]  # mov dx, 0x3f8
            + [0xFC, 0xF3, 0x6E]  # cld; rep outsb
            + [0xFF, 0xCB]  # dec ebx
            + [0x75, 0xE9]  # jnz again
        )
        return self.raw(code).exit(0).hang().raw(bytes(4) + byte.encode() * 4096)

    def arguments(self, test):
        """Options that run it; the file lives as long as the test."""
        file = tempfile.NamedTemporaryFile(suffix=".bin")
        test.addCleanup(file.close)
        file.write(self.code)
        file.flush()
        return ["run", "--kernel", file.name, "--boot", "flat", "--mem", "4M"]


def default_signals():
    """In the child: whoever started the tests in the background has made it ignore some, and the command keeps to that."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGTSTP, signal.SIGCONT):
        signal.signal(number, signal.SIG_DFL)


class Running:
    """The command while it runs; killed at the end of the test if it still does."""

    def __init__(self, test, arguments, preexec_fn=default_signals, **streams):
        self.process = subprocess.Popen([VMM, *map(str, arguments)], preexec_fn=preexec_fn, **streams)
        test.addCleanup(self.close)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                stream.close()

    def wait(self):
        return self.process.wait(PATIENCE)

    def signal(self, number):
        self.process.send_signal(number)


def read_until(fd, expected):
    """What comes from fd up to the end of `expected`, or until the patience or the stream ends. What follows is left."""
    text = b""
    end = time.monotonic() + PATIENCE
    while expected.encode() not in text and time.monotonic() < end:
        if select.select([fd], [], [], 0.2)[0]:
            try:
                piece = os.read(fd, 1)
            except OSError:  # a terminal whose last user has gone
                break
            if not piece:
                break
            text += piece
    return text.decode("latin-1")


def eventually(condition):
    """Whether it comes true; what was seen once is not asked for again, as it may be over by then."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(0.01)
    return True


def listens(path):
    """Whether somebody can connect; the socket's file is there a moment before."""
    with open("/proc/net/unix", encoding="utf-8") as sockets:
        return any(line.split()[3] == "00010000" and line.rstrip().endswith(f" {path}") for line in sockets)


class OnTerminal(Running):
    """The command on a new terminal, which is its controlling one; stderr too unless given."""

    def __init__(self, test, arguments, **streams):
        self.master, slave = os.openpty()
        self.slave = slave  # kept open, so that the mode can be looked at afterwards
        self.before = termios.tcgetattr(slave)

        def take_terminal():
            default_signals()
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        test.addCleanup(os.close, self.master)
        test.addCleanup(os.close, slave)
        streams.setdefault("stderr", slave)
        super().__init__(
            test, arguments, stdin=slave, stdout=slave, preexec_fn=take_terminal, **streams
        )

    def type(self, text):
        os.write(self.master, text.encode("latin-1"))

    def read_until(self, expected):
        return read_until(self.master, expected)

    def is_raw(self):
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO)

    def is_restored(self):
        return termios.tcgetattr(self.slave) == self.before


def main():
    """unittest.main() for a file that Meson starts with the command's path."""
    global VMM
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        VMM = os.path.abspath(sys.argv.pop(1))
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    unittest.main(module="__main__", verbosity=2)
