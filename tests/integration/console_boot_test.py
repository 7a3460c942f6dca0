"""Linux with its console on virtio, a port for programs, and a watchdog: one boot, as a person at a terminal and a
program on a socket see it."""
import fcntl
import hashlib
import pathlib
import random
import socket
import struct
import tempfile
import termios
import threading
import unittest

from guest import Machine, make_initramfs, requirements

# /dev/console may have been opened before the driver knew its ports, so the script waits for what it needs. The port is opened
# once: Linux throws away what has arrived when a port is closed.
SCRIPT = """\
until [ -c /dev/hvc0 ]; do sleep 0.1; done
exec </dev/hvc0 >/dev/hvc0 2>&1
for port in /sys/class/virtio-ports/*; do echo "port ${port##*/} '$(cat $port/name 2>/dev/null)'"; done
echo "consoles $(cat /sys/class/tty/console/active)"
echo ready-$((1 + 1))
read -r line; echo "got $line, which has ${#line} characters"
until [ "$(stty size)" = "43 132" ]; do sleep 0.1; done
echo "size $(stty size)"
seq 1 150000 >/tmp/up
exec 4<>/dev/vport0p1
cat /tmp/up >&4
echo sent-$((2 + 2))
echo "received $(head -c 1000000 <&4 | sha256sum)"
echo "watchdog $(dmesg | grep -o 'i6300[eE][sS][bB].*heartbeat=2 sec' | grep -o 'heartbeat.*')"
exec 3>/dev/watchdog
echo fed >&3
echo armed-$((3 + 3))
sleep 1000
"""
UP = "".join(f"{i}\n" for i in range(1, 150001)).encode()
DOWN = random.Random(53).randbytes(1_000_000)
NAME = "org.example.test"


class Program:
    """A program of the host's that talks to the port."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.got = b""
        threading.Thread(target=lambda: self.socket.sendall(DOWN), daemon=True).start()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        while len(self.got) < len(UP) and (piece := self.socket.recv(65536)):
            self.got += piece


class ConsoleBoot(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        kernel = requirements()
        with tempfile.TemporaryDirectory() as folder:
            script = pathlib.Path(folder) / "script"
            script.write_text(SCRIPT, encoding="utf-8")
            initramfs = make_initramfs(folder, "--script", script)
            arguments = ["--kernel", kernel, "--initrd", str(initramfs), "--mem", "128M",
                         "--cmdline", "quiet i6300esb.heartbeat=2",
                         "--console", "stdio", "--console", f"unix:{folder}/port,name={NAME}",
                         "--watchdog=action=stop"]
            with Machine(arguments, terminal=True) as machine:
                machine.wait_for(r"ready-2")
                machine.type("a line\r")
                machine.wait_for(r"got a line")
                fcntl.ioctl(machine.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 43, 132, 0, 0))
                program = Program(f"{folder}/port")
                machine.wait_for(r"armed-6")
                program.reader.join(60)
                cls.status = machine.wait_for_end()
                cls.text = machine.text.replace("\r", "")
                cls.stderr = machine.stderr()
                cls.restored = machine.settings_now() == machine.settings_before
            cls.got = program.got
            program.socket.close()

    def test_console_is_linuxs_last(self):
        self.assertIn("consoles ttyS0 hvc0\n", self.text)

    def test_port_has_its_name(self):
        self.assertIn(f"port vport0p1 '{NAME}'\n", self.text)
        self.assertIn("port vport0p0 ''\n", self.text)

    def test_what_is_typed_arrives(self):
        self.assertIn("got a line, which has 6 characters\n", self.text)

    def test_guest_knows_the_terminals_size(self):
        self.assertIn("size 43 132\n", self.text)

    def test_program_of_the_host_gets_every_byte(self):
        self.assertEqual(len(self.got), len(UP))
        self.assertEqual(hashlib.sha256(self.got).digest(), hashlib.sha256(UP).digest())

    def test_program_of_the_guest_gets_every_byte(self):
        self.assertIn(f"received {hashlib.sha256(DOWN).hexdigest()}", self.text)

    def test_unfed_watchdog_stops_the_guest(self):
        self.assertIn("watchdog heartbeat=2 sec\n", self.text)
        self.assertEqual(self.status, 28, self.stderr)
        self.assertIn("vmm: the guest did not feed its watchdog", self.stderr)
        self.assertIn("vmm: guest stopped by its watchdog", self.stderr)

    def test_terminal_is_given_back(self):
        self.assertTrue(self.restored)


if __name__ == "__main__":
    unittest.main(verbosity=2)
