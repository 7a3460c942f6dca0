"""Linux on a network: user mode and a tap device in one boot, many checks. Everything that is not the guest stands in a
network namespace of the test's own."""
import hashlib
import http.server
import os
import pathlib
import random
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from guest import Machine, make_initramfs, requirements

MAC = "52:54:00:ab:cd:01"
TAP = "vmmtest0"
TAP_HOST, TAP_GUEST = "10.99.0.1", "10.99.0.2"
SERVICE = 7777  # a port in the guest

DHCP = """\
#!/bin/sh
if [ "$1" = bound ]; then
  ip addr add "$ip/24" dev "$interface"
  ip route add default via "$router"
  echo "address $ip router $router dns $dns"
fi
"""

# Each section begins with a line that nothing else prints. PORT and UPLOAD are ports of the host's. Linux tells of a carrier a
# moment after it is there.
SCRIPT = """\
section() {{ echo "=== $1"; }}
ip link set lo up
ip link set eth0 up
ip link set eth1 up
i=0; while ip link | grep -q NO-CARRIER && [ $i -lt 600 ]; do sleep 0.1; i=$((i + 1)); done
section links;    ip link
section features; for d in /sys/bus/virtio/devices/*; do echo "$(cat $d/device) $(cat $d/features)"; done
section dhcp;     udhcpc -i eth0 -n -q -t 10 -s /dhcp
section ping;     ping -c 2 10.0.2.2
section fetch;    wget -q -O - http://10.0.2.2:{port}/file | sha256sum
section upload;   seq 1 20000 >/tmp/up; sha256sum </tmp/up; nc 10.0.2.2 {upload} </tmp/up
section service;  echo ready; nc -l -p {service} </tmp/up >/tmp/got; sha256sum </tmp/got
section tap;      ip addr add {guest}/24 dev eth1; ping -c 2 {host}; cat /sys/class/net/eth1/mtu
section tapfetch; wget -q -O - http://{host}:{port}/large | sha256sum
section tapsend;  sha256sum </tmp/up; nc {host} {upload} </tmp/up
section counters; cat /proc/net/dev; cat /proc/interrupts
section end
"""


def in_namespace():
    return os.environ.get("VMM_TEST_NAMESPACE") == "1"


def enter_namespace():
    """Starts this program again where it may make network devices; returns only when it cannot."""
    if in_namespace() or not shutil.which("unshare") or not shutil.which("ip"):
        return
    options = ["--net"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--net"]
    if subprocess.run(["unshare", *options, "ip", "link", "set", "lo", "up"], capture_output=True).returncode == 0:
        os.environ["VMM_TEST_NAMESPACE"] = "1"
        os.execvp("unshare", ["unshare", *options, sys.executable, *sys.argv])


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


def digest(data):
    return hashlib.sha256(data).hexdigest()


class Files(http.server.BaseHTTPRequestHandler):
    contents = {}

    def do_GET(self):
        data = self.contents[self.path]
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class Sink:
    """A TCP server that keeps what each client sends until its end."""

    def __init__(self):
        self.listener = socket.create_server(("", 0))
        self.port = self.listener.getsockname()[1]
        self.received = []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            client, _ = self.listener.accept()
            with client:
                data = b""
                while piece := client.recv(65536):
                    data += piece
                self.received.append(data)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def frames_of(path):
    """The frames of a pcap file, which must be whole."""
    data = path.read_bytes()
    magic, link = struct.unpack_from("<I16xI", data)
    assert (magic, link) == (0xA1B23C4D, 1), "no pcap file of Ethernet frames"
    frames, at = [], 24
    while at < len(data):
        _, _, captured, original = struct.unpack_from("<IIII", data, at)
        assert captured == original and at + 16 + captured <= len(data), "half a frame"
        frames.append(data[at + 16:at + 16 + captured])
        at += 16 + captured
    return frames


class Network:
    """The checks; the classes below say how the guest reaches its devices."""

    options = ()

    @classmethod
    def setUpClass(cls):
        kernel = requirements()
        if not in_namespace():
            raise unittest.SkipTest("no network namespace is to be had")
        ip("link", "set", "lo", "up")
        ip("tuntap", "add", TAP, "mode", "tap")
        ip("address", "add", f"{TAP_HOST}/24", "dev", TAP)
        ip("link", "set", TAP, "up")
        cls.addClassCleanup(ip, "link", "delete", TAP)
        Files.contents = {
            "/file": random.Random(1).randbytes(300_000),
            "/large": random.Random(2).randbytes(1_000_000),
        }
        server = http.server.ThreadingHTTPServer(("", 0), Files)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        cls.addClassCleanup(server.server_close)
        cls.addClassCleanup(server.shutdown)
        cls.sink = Sink()
        forwarded = free_port()
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / "dhcp").write_text(DHCP)
            (folder / "script").write_text(SCRIPT.format(
                port=server.server_port, upload=cls.sink.port, service=SERVICE, host=TAP_HOST, guest=TAP_GUEST))
            initramfs = make_initramfs(folder, "--script", folder / "script", "--add", f"{folder}/dhcp:/dhcp")
            arguments = ["--kernel", kernel, "--initrd", str(initramfs), "--mem", "256M", "--verbose"]
            arguments += ["--net", f"user,hostfwd=tcp:127.0.0.1:{forwarded}-:{SERVICE},mac={MAC},pcap={folder}/net.pcap"]
            arguments += ["--net", f"tap={TAP},pcap={folder}/tap.pcap", *cls.options]
            with Machine(arguments) as machine:
                machine.close_input()
                machine.wait_for(r"=== service\s+ready")
                cls.sent = random.Random(3).randbytes(100_000)
                cls.got = cls.use_service(forwarded)
                cls.status = machine.wait_for_end()
                cls.text = machine.text.replace("\r", "")
                cls.stderr = machine.stderr()
            cls.frames = frames_of(folder / "net.pcap")
            cls.tap_frames = frames_of(folder / "tap.pcap")
        cls.sections = {}
        for part in re.split(r"^=== ", cls.text, flags=re.MULTILINE)[1:]:
            name, _, body = part.partition("\n")
            cls.sections[name] = re.sub(r"^\[ *\d+\.\d+\] .*\n", "", body, flags=re.MULTILINE)

    @classmethod
    def use_service(cls, port):
        """What the guest's service says; then it gets what was to be sent."""
        # The guest may not listen yet when its script says so: then its end of the connection is refused.
        while True:
            with socket.create_connection(("127.0.0.1", port)) as client:
                data = b""
                try:
                    while piece := client.recv(65536):
                        data += piece
                except ConnectionError:
                    pass
                if data:
                    client.sendall(cls.sent)
                    return data
            time.sleep(0.2)

    def test_guest_ends_well(self):
        self.assertEqual(self.status, 0, self.stderr)
        self.assertIn("end", self.sections)

    def test_address_is_the_chosen_one(self):
        self.assertIn(MAC, self.sections["links"])

    def test_default_address_is_locally_administered(self):
        first = int(re.search(r"eth1.*\n.*link/ether (\w\w):", self.sections["links"])[1], 16)
        self.assertEqual(first & 3, 2)

    def test_links_are_up(self):
        self.assertNotIn("NO-CARRIER", self.sections["links"])

    def test_tap_has_offloads_and_user_mode_has_none(self):
        user, tap = re.findall(r"^0x0001 ([01]+)$", self.sections["features"], re.MULTILINE)
        offloads = (0, 1, 7, 8, 11, 12)  # CSUM, GUEST_CSUM, TSO both ways
        self.assertEqual({user[i] for i in offloads}, {"0"})
        self.assertEqual({tap[i] for i in offloads}, {"1"})
        for features in (user, tap):
            self.assertEqual({features[i] for i in (5, 15, 16, 17, 18, 32)}, {"1"})

    def test_dhcp_gives_the_first_address(self):
        self.assertIn("address 10.0.2.15 router 10.0.2.2 dns 10.0.2.3", self.sections["dhcp"])

    def test_gateway_answers_pings(self):
        self.assertIn("2 packets received", self.sections["ping"])

    def test_file_arrives_through_user_mode(self):
        self.assertIn(digest(Files.contents["/file"]), self.sections["fetch"])

    def test_upload_arrives_by_both_ways(self):
        data = "".join(f"{i}\n" for i in range(1, 20001)).encode()
        self.assertIn(digest(data), self.sections["upload"])
        self.assertEqual([digest(received) for received in self.sink.received], [digest(data)] * 2)

    def test_forwarded_port_leads_to_the_guests_service(self):
        self.assertEqual(digest(self.got), digest("".join(f"{i}\n" for i in range(1, 20001)).encode()))
        self.assertIn(digest(self.sent), self.sections["service"])

    def test_tap_reaches_the_host(self):
        self.assertIn("2 packets received", self.sections["tap"])
        self.assertRegex(self.sections["tap"], r"(?m)^1500$")

    def test_large_file_arrives_through_the_tap(self):
        self.assertIn(digest(Files.contents["/large"]), self.sections["tapfetch"])

    def test_segments_are_not_cut_on_the_tap(self):
        counters = re.search(r"eth1:(.*)", self.sections["counters"])[1].split()
        self.assertGreater(int(counters[0]), 1_000_000)
        # Segmentation is left to the device: TCP hands over more than fits an Ethernet frame.
        self.assertGreater(max(len(frame) for frame in self.tap_frames), 1514)

    def test_capture_has_both_directions(self):
        mac = bytes.fromhex(MAC.replace(":", ""))
        self.assertTrue(any(frame[6:12] == mac for frame in self.frames))
        self.assertTrue(any(frame[:6] == mac for frame in self.frames))
        self.assertGreater(sum(len(frame) for frame in self.frames), 300_000)
        self.assertTrue({frame[12:14] for frame in self.frames} >= {b"\x08\x00", b"\x08\x06"})

    def test_no_errors_were_counted(self):
        for name in ("eth0", "eth1"):
            counters = re.search(rf"{name}:(.*)", self.sections["counters"])[1].split()
            self.assertEqual((counters[2], counters[10]), ("0", "0"), "receive and transmit errors")


class Pci(Network, unittest.TestCase):
    pass


class Mmio(Network, unittest.TestCase):
    options = ("--transport", "mmio")


if __name__ == "__main__":
    enter_namespace()
    unittest.main(verbosity=2)
