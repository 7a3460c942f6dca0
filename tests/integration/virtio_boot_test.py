"""Linux and its virtio drivers: one boot for each transport and way to find the devices, many checks."""
import hashlib
import pathlib
import random
import re
import socket
import subprocess
import tempfile
import threading
import time
import unittest

from guest import Machine, make_initramfs, requirements

SOURCES = pathlib.Path(__file__).parent

SCRIPT = """\
section() { echo "=== $1"; }
section drivers;    ls /sys/bus/virtio/devices /sys/bus/virtio/drivers/virtio_rng
section status;     cat /sys/bus/virtio/devices/virtio0/status
section features;   cat /sys/bus/virtio/devices/virtio0/features
section source;     cat /sys/class/misc/hw_random/rng_current
section random;     i=0; while [ $i -lt 3 ]; do dd if=/dev/hwrng bs=512 count=4 2>/dev/null | sha256sum; i=$((i + 1)); done
section large;      dd if=/dev/hwrng bs=65536 count=1 2>/dev/null | wc -c
section again;      cd /sys/bus/virtio/drivers/virtio_rng; echo virtio0 >unbind; echo virtio0 >bind; cat /sys/class/misc/hw_random/rng_current; dd if=/dev/hwrng bs=16 count=1 2>/dev/null | wc -c
section pci;        cd /sys/bus/pci/devices; for i in *; do echo "$i $(cat $i/vendor) $(cat $i/device) $(cat $i/class)"; done
section vectors;    ls 0000:00:01.0/msi_irqs 2>/dev/null
section removed;    echo 1 >0000:00:01.0/remove; ls; cat /sys/class/misc/hw_random/rng_current
section rescanned;  echo 1 >/sys/bus/pci/rescan; cat /sys/class/misc/hw_random/rng_current; dd if=/dev/hwrng bs=16 count=1 2>/dev/null | wc -c
section interrupts; cat /proc/interrupts
cd /
seq 1 20000 >/tmp/up
section vsock;      vsock_cat connect 52 </tmp/up | sha256sum
section nobody;     vsock_cat connect 53 </dev/null 2>&1
section listen;     vsock_cat listen 77 </tmp/up 2>/dev/null | sha256sum
section end
"""
UP = "".join(f"{i}\n" for i in range(1, 20001)).encode()
DOWN = random.Random(4).randbytes(200_000)  # more than any buffer on the way


def digest(data):
    return hashlib.sha256(data).hexdigest()


class VsockHost:
    """Programs of the host: one that the guest connects to, one that connects to the guest."""

    def __init__(self, path):
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(f"{path}_52")
        self.listener.listen()
        self.served = self.got = b""
        self.greeting = ""
        for work in (self.serve, self.connect):
            threading.Thread(target=work, daemon=True).start()

    @staticmethod
    def exchange(connection):
        """Sends all, and takes all: at the same time, as neither side has room for everything."""
        sender = threading.Thread(target=lambda: (connection.sendall(DOWN), connection.shutdown(socket.SHUT_WR)))
        sender.start()
        data = b""
        while piece := connection.recv(65536):
            data += piece
        sender.join()
        return data

    def serve(self):
        connection, _ = self.listener.accept()
        with connection:
            self.served = self.exchange(connection)

    def connect(self):
        # Until the guest listens, it is sent away; before the machine is there, nobody is.
        while True:
            try:
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.connect(self.path)
                    connection.sendall(b"CONNECT 77\n")
                    greeting = b""
                    while not greeting.endswith(b"\n") and (piece := connection.recv(1)):
                        greeting += piece
                    if greeting:
                        self.greeting = greeting.decode()
                        self.got = self.exchange(connection)
                        return
            except OSError:
                pass
            time.sleep(0.2)


class VirtioBoot:
    """The checks; the classes below say how the kernel is told of the devices."""

    transport = ""
    cmdline = ""
    interrupt = r"virtio0"  # how /proc/interrupts names one of the device's

    @classmethod
    def setUpClass(cls):
        kernel = requirements()
        with tempfile.TemporaryDirectory() as folder:
            script = pathlib.Path(folder) / "script"
            script.write_text(SCRIPT, encoding="utf-8")
            subprocess.run(["cc", "-static", "-O1", "-o", f"{folder}/vsock_cat", SOURCES / "vsock_cat.c"], check=True)
            initramfs = make_initramfs(folder, "--script", script, "--add", f"{folder}/vsock_cat:/bin/vsock_cat")
            cls.host = VsockHost(f"{folder}/v.sock")
            arguments = ["--kernel", kernel, "--initrd", str(initramfs), "--mem", "128M", "--rng",
                         "--transport", cls.transport, "--vsock", f"path={folder}/v.sock"]
            arguments += ["--cmdline", cls.cmdline] if cls.cmdline else []
            with Machine(arguments) as machine:
                machine.close_input()
                cls.status = machine.wait_for_end()
                cls.text = machine.text.replace("\r", "")
                cls.stderr = machine.stderr()
            cls.left_behind = pathlib.Path(f"{folder}/v.sock").exists()
        cls.sections = {}
        for part in re.split(r"^=== ", cls.text, flags=re.MULTILINE)[1:]:
            name, _, body = part.partition("\n")
            cls.sections[name] = re.sub(r"^\[ *\d+\.\d+\] .*\n", "", body, flags=re.MULTILINE)

    def test_powers_off_with_status_0(self):
        self.assertEqual(self.status, 0, self.stderr)
        self.assertIn("end", self.sections)

    def test_driver_is_bound(self):
        self.assertIn("virtio0", self.sections["drivers"].split(":")[-1])

    def test_status_is_that_of_a_working_driver(self):
        self.assertEqual(self.sections["status"].strip(), "0x0000000f")

    def test_driver_took_the_ring_features(self):
        bits = self.sections["features"].strip()
        for bit, name in ((28, "indirect descriptors"), (29, "event index"), (32, "version 1")):
            self.assertEqual(bits[bit], "1", name)

    def test_entropy_device_is_the_source(self):
        self.assertIn("virtio_rng", self.sections["source"])

    def test_bytes_differ_each_time(self):
        digests = re.findall(r"^[0-9a-f]{64}", self.sections["random"], re.MULTILINE)
        self.assertEqual(len(digests), 3)
        self.assertEqual(len(set(digests)), 3)

    def test_bytes_come_in_any_number(self):
        self.assertGreater(int(self.sections["large"]), 0)

    def test_driver_can_be_bound_again(self):
        lines = self.sections["again"].split()
        self.assertIn("virtio_rng", lines[0])
        self.assertEqual(lines[-1], "16")

    def test_interrupts_arrive(self):
        line = re.search(rf"^ *\d+:\s+(\d+) .*{self.interrupt}$", self.sections["interrupts"], re.MULTILINE)
        self.assertIsNotNone(line, self.sections["interrupts"])
        self.assertGreater(int(line[1]), 0)

    def test_guest_reaches_a_program_of_the_host(self):
        self.assertEqual(digest(self.host.served), digest(UP))
        self.assertIn(digest(DOWN), self.sections["vsock"])

    def test_program_of_the_host_reaches_the_guest(self):
        self.assertRegex(self.host.greeting, r"^OK \d+\n$")
        self.assertEqual(digest(self.host.got), digest(UP))
        self.assertIn(digest(DOWN), self.sections["listen"])

    def test_port_that_nobody_listens_on_is_refused_at_once(self):
        self.assertIn("Connection reset by peer", self.sections["nobody"])

    def test_socket_is_removed_at_the_end(self):
        self.assertFalse(self.left_behind)


class PciBoot(VirtioBoot):
    """What is particular to a function of the PCI bus."""

    transport = "pci"

    def test_bus_has_the_bridge_and_the_devices(self):
        self.assertEqual(self.sections["pci"].splitlines(), ["0000:00:00.0 0x1b36 0x0008 0x060000",
                                                             "0000:00:01.0 0x1af4 0x1044 0xff0000",
                                                             "0000:00:02.0 0x1af4 0x1053 0xff0000"])

    def test_kernel_and_firmware_agree_on_who_controls_what(self):
        self.assertRegex(self.text, r"PNP0A08:00: _OSC: OS supports \[ExtendedConfig ")
        self.assertNotRegex(self.text, r"_OSC failed|_OSC: platform retains control|ACPI.*Error")

    def test_device_can_be_removed_and_found_again(self):
        self.assertNotIn("0000:00:01.0", self.sections["removed"])
        self.assertNotIn("virtio_rng", self.sections["removed"])
        self.assertIn("virtio_rng", self.sections["rescanned"])
        self.assertEqual(self.sections["rescanned"].split()[-1], "16")


class Messages(PciBoot, unittest.TestCase):
    interrupt = r"PCI-MSI.* virtio\d+-input"

    def test_vectors_are_those_of_a_queue_and_the_configuration(self):
        self.assertEqual(len(self.sections["vectors"].split()), 2)


class Wire(PciBoot, unittest.TestCase):
    cmdline = "pci=nomsi"
    interrupt = r"IO-APIC +17-fasteoi +virtio\d+"

    def test_there_are_no_vectors(self):
        self.assertEqual(self.sections["vectors"], "")


class NamedByAcpi(VirtioBoot, unittest.TestCase):
    transport = "mmio"


class NamedOnTheCommandLine(VirtioBoot, unittest.TestCase):
    transport = "mmio-cmdline"


if __name__ == "__main__":
    unittest.main(verbosity=2)
