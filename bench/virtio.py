#!/usr/bin/env python3
"""Measures virtio devices against the bare system calls and against QEMU; docs/benchmarks.md says what and how.

    bench/virtio.py --build BUILD [--rounds 15] [--only disk,direct,durable,latency,network,receive,idle] [--file IMAGE]

As bench/run.py, whose rounds and figures these are. IMAGE is made where TMPDIR says when it is not given. The
network needs root, for a tap device in a network namespace of its own. All figures are times of one request or frame.
"""
import argparse
import contextlib
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

import run

IMAGE_MIB = 256
GUEST_MIB = 256
NAMESPACE = "vmm-bench"
TAP = "vmmbench0"
# The guest's numbers, in the order in which they lie at offset 8 of its image.
PARAMETERS = ("count", "first", "distance", "slots", "device_id", "queue", "features", "depth", "bytes", "type",
              "places", "sequential", "always_ring", "idle")
OURS = {"first": 0xe8000000, "distance": 0x1000, "slots": 8}
QEMUS = {"first": 0xfeb00000, "distance": 0x200, "slots": 24}
# A disk's driver that can flush (VIRTIO 1.2, 5.2.3) has a cache that is written back. One that cannot has each write
# on the medium before it hears of its end.
WRITE_BACK = 1 << 9
FLOOR_SHARE = 0.7  # of the floor's rate, at least
QEMU_TIMES = 1.3   # of QEMU's rate, at least
ROUND_TRIP = 1.3   # of the ping-pong's time, at most


def frame(bytes_in_all):
    """A frame of that length: virtio_net_hdr, Ethernet, and for what is larger than a packet IPv4 and TCP."""
    ethernet = bytes.fromhex("525400aabbcc" "525400ddeeff")
    if bytes_in_all <= 1526:
        return bytes(12) + ethernet + b"\x88\xb5"  # an EtherType for experiments
    length = bytes_in_all - 12 - 14
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, length, 0, 0x4000, 64, 6, 0, bytes([10, 9, 8, 1]), bytes([10, 9, 8, 2]))
    total = sum(struct.unpack(">10H", ip))
    total = (total & 0xffff) + (total >> 16)
    ip = ip[:10] + struct.pack(">H", ~(total + (total >> 16)) & 0xffff) + ip[12:]
    tcp = struct.pack(">HHIIBBHHH", 1000, 2000, 1, 1, 0x50, 0x10, 1000, 0, 0)
    header = struct.pack("<BBHHHHH", 1, 1, 54, 1448, 34, 16, 0)  # checksum to do, TCP over IPv4
    return header + ethernet + b"\x08\x00" + ip + tcp


class VirtioBench(run.Bench):
    def __init__(self, args, scratch):
        super().__init__(args)
        self.scratch = scratch
        self.guests = 0

    def guest(self, **numbers):
        """The payload with its numbers, as a file."""
        image = bytearray((self.dir / "virtio.bin").read_bytes())
        first_bytes = numbers.pop("frame", b"")
        for at, name in enumerate(PARAMETERS):
            if name in numbers:
                struct.pack_into("<Q", image, 8 + 8 * at, numbers[name])
        at = 8 + 8 * len(PARAMETERS)
        image[at:at + len(first_bytes)] = first_bytes
        self.guests += 1
        path = self.scratch / f"guest{self.guests}.bin"
        path.write_bytes(image)
        return str(path)

    def ours(self, guest, *options):
        return [self.vmm, "run", "--boot", "flat,addr=0x1000,mode=real", "--kernel", guest, "--irqchip", "kernel",
                "--transport", "mmio", "--mem", f"{GUEST_MIB}M", "--serial", "stdio", *options]

    def qemus(self, guest, *options):
        return [self.qemu, "-M", "microvm,accel=kvm", "-m", str(GUEST_MIB), "-nodefaults", "-display", "none",
                "-serial", "stdio", "-bios", str(self.dir / "jump.rom"), "-device",
                "isa-debug-exit,iobase=0xf4,iosize=1", "-device", f"loader,file={guest},addr=0x1000,force-raw=on",
                "-global", "virtio-mmio.force-legacy=off", *options]

    def disks(self, direct, **numbers):
        """One payload in front of our disk and QEMU's, whose guest has huge pages without being asked: a disk takes half
        as long again, or three times as long, to move much to pages that are scattered."""
        on = "on" if direct else "off"
        contestants = {"vmm": self.ours(self.guest(**OURS, **numbers), "--thp", "--disk",
                                        f"path={self.args.file}" + (",direct" if direct else ""))}
        if self.qemu:
            contestants["qemu"] = self.qemus(
                self.guest(**QEMUS, **numbers), "-object", "iothread,id=t0", "-blockdev",
                f"driver=file,node-name=d0,filename={self.args.file},aio=io_uring,cache.direct={on}", "-device",
                "virtio-blk-device,drive=d0,iothread=t0,queue-size=256")
        return contestants

    def compare(self, measurement, contestants, count, share=1 / FLOOR_SHARE):
        """The first is the floor, whose time ours may be `share` times."""
        if share:
            run.TARGETS[(measurement, "vmm")] = share
        self.measure_between(contestants, (measurement,), "ab", count)

    def measure_disk(self, direct=False):
        """4 KiB at random places, one and 32 at a time, and 1 MiB in sequence: of a file in the page cache."""
        where = "direct" if direct else "cached"
        scale = 8 if direct else 1
        for op in ("read", "write"):
            for size, depth, order, count in ((4096, 1, "random", 20000), (4096, 32, "random", 60000),
                                              (1 << 20, 4, "sequential", 600)):
                self.measure_requests(f"{where} {op}", op, size, depth, order, count // scale, direct, WRITE_BACK)

    def measure_direct(self):
        """The same past the page cache."""
        self.measure_disk(direct=True)

    def measure_durable(self):
        """Writes of a driver that cannot flush: each is on the medium when it ends."""
        for depth, count in ((1, 200), (32, 1600)):
            self.measure_requests("write through", "durable", 4096, depth, "random", count, False, 0)

    def measure_requests(self, what, op, size, depth, order, count, direct, features):
        places = (IMAGE_MIB << 20) // size
        floor = [str(self.dir / "virtio_floor"), "disk", self.args.file, op, str(size), str(depth), str(count), order,
                 str(places), "direct" if direct else "buffered"]
        self.compare(f"{what}, {size >> 10} KiB {order}, depth {depth}", {"io_uring": floor} | self.disks(
            direct, count=count, depth=depth, bytes=size, type=int(op != "read"), places=places - 1,
            sequential=int(order == "sequential"), features=features), count)

    def measure_latency(self):
        """From a request, for the serial number, to its answer, against two threads that wake each other."""
        count = 20000
        numbers = {"count": count, "type": 8, "bytes": 20}
        floor = {"eventfd ping-pong": [str(self.dir / "virtio_floor"), "pingpong", str(count)]}
        self.compare("round trip", floor | self.disks(False, **numbers), count, ROUND_TRIP)
        self.compare("round trip, always rung", floor | self.disks(False, always_ring=1, **numbers), count, None)

    def measure_network(self):
        """Frames of 64 bytes, and segments of 64 000, from the guest to a tap device."""
        def inside(command):
            return ["ip", "netns", "exec", NAMESPACE, *command]

        with tap_in_namespace():
            for size, count in ((12 + 64, 60000), (12 + 64000, 20000)):
                first = frame(size)
                numbers = {"count": count, "device_id": 1, "queue": 1, "depth": 32, "bytes": size, "frame": first,
                           "features": 1 | 1 << 11}  # CSUM, HOST_TSO4
                contestants = {
                    "tap": inside([str(self.dir / "virtio_floor"), "tap", TAP, str(size), str(count), first.hex()]),
                    "vmm": inside(self.ours(self.guest(**OURS, **numbers), "--net", f"tap={TAP}")),
                }
                if self.qemu:
                    contestants["qemu"] = inside(self.qemus(
                        self.guest(**QEMUS, **numbers), "-netdev", f"tap,id=n0,ifname={TAP},script=no,downscript=no",
                        "-device", "virtio-net-device,netdev=n0,tx=bh"))
                self.compare(f"network, {size - 12} bytes", contestants, count)

    def measure_receive(self):
        """Frames of 64 bytes, and segments of 64 000, that wait in the queue of a tap device, to the guest."""
        with tap_in_namespace(queue=50000):
            for size, room, count in ((12 + 64, 1526, 30000), (12 + 64000, 65562, 1200)):
                first = frame(size)
                numbers = {"count": count, "device_id": 1, "queue": 0, "depth": 256, "bytes": room,
                           "features": 1 << 1 | 1 << 7}  # GUEST_CSUM, GUEST_TSO4
                floor = str(self.dir / "virtio_floor")
                contestants = {
                    "tap": [floor, "receive", TAP, str(room), str(count)],
                    "vmm": self.ours(self.guest(**OURS, **numbers), "--thp", "--net", f"tap={TAP}"),
                }
                if self.qemu:
                    contestants["qemu"] = self.qemus(
                        self.guest(**QEMUS, **numbers), "-netdev", f"tap,id=n0,ifname={TAP},script=no,downscript=no",
                        "-device", "virtio-net-device,netdev=n0")
                enough = count + count // 16 + 2 * 256
                self.compare(f"received, {size - 12} bytes", {name: [
                    "ip", "netns", "exec", NAMESPACE, floor, "feed", TAP, str(size), str(enough), first.hex(), *command]
                    for name, command in contestants.items()}, count)

    def measure_idle(self):
        """CPU time of all threads but the CPU's in a second in which the guest does nothing, after it did much."""
        for name, command in self.disks(False, count=5000, depth=4, bytes=4096, idle=1, places=1023).items():
            self.figures.add("idle host threads", name, "ms", idle_time(command))


@contextlib.contextmanager
def tap_in_namespace(queue=500):
    commands = (f"ip netns add {NAMESPACE}", f"ip -n {NAMESPACE} tuntap add {TAP} mode tap vnet_hdr",
                f"ip -n {NAMESPACE} link set {TAP} txqueuelen {queue} up")
    try:
        for command in commands:
            subprocess.run(command.split(), check=True)
        yield
    finally:
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=False)


def idle_time(command):
    """Milliseconds of CPU time that a guest which has said 'b' makes others than its CPU spend in a second."""
    def spent(pid):
        total = 0
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            name = (task / "comm").read_text().strip()
            if name.startswith("vcpu") or name.startswith("CPU "):
                continue
            total += int((task / "schedstat").read_text().split()[0])
        return total

    # QEMU names its threads only when it is told to.
    if "-nodefaults" in command:
        command = command[:1] + ["-name", "bench,debug-threads=on"] + command[1:]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as child:
        try:
            seen = b""
            while b"b" not in seen:
                chunk = os.read(child.stdout.fileno(), 64)
                if not chunk:
                    sys.exit(f"{' '.join(command)}: 'b' never came")
                seen += chunk
            time.sleep(0.2)
            before, begin = spent(child.pid), time.monotonic()
            time.sleep(1)
            return (spent(child.pid) - before) / 1e6 / (time.monotonic() - begin)
        finally:
            child.send_signal(signal.SIGKILL)


def compare_with_qemu(table):
    """Lines on how ours compares with QEMU's, for the measurements that have both."""
    medians = {(row["measurement"], row["contestant"]): row["median"] for row in table}
    for (measurement, contestant), median in medians.items():
        other = medians.get((measurement, "qemu"))
        if contestant == "vmm" and other and median and "idle" not in measurement:
            times = other / median
            yield f"{measurement}: {times:.2f} times QEMU's rate {'' if times >= QEMU_TIMES else '(MISSED)'}".rstrip()


def make_image(path):
    with open(path, "wb") as image:
        for _ in range(IMAGE_MIB):
            image.write(os.urandom(1 << 20))
        image.flush()
        os.fsync(image.fileno())


def main():
    parser = argparse.ArgumentParser(description="measure virtio devices against the floor and QEMU")
    parser.add_argument("--build", default="build", help="Meson build folder (default: build)")
    parser.add_argument("--vmm", help="the program, when it is not the build's")
    parser.add_argument("--file", help=f"the disk's image, of at least {IMAGE_MIB} MiB; it is written to")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cpu", type=int, help="pin the contestants and the launcher to this CPU")
    parser.add_argument("--realtime", action="store_true",
                        help="run everything with real-time priority, away from a busy host's other work (chrt)")
    parser.add_argument("--only", default="disk,direct,durable,latency,network,receive,idle")
    parser.add_argument("--json", help="also write the figures here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vmm-bench-") as folder:
        scratch = pathlib.Path(folder)
        if not args.file:
            args.file = str(scratch / "disk.img")
            make_image(args.file)
        bench = VirtioBench(args, scratch)
        if not bench.vmm:
            sys.exit("vmm itself is not there: --build or --vmm")
        wanted = args.only.split(",")
        if {"network", "receive"} & set(wanted) and (os.geteuid() != 0 or not shutil.which("ip")):
            print("network, receive: need root and ip(8)", file=sys.stderr)
            args.only = ",".join(name for name in wanted if name not in ("network", "receive"))
        table = run.measure_all(bench, args)
        for line in compare_with_qemu(table):
            print(line)


if __name__ == "__main__":
    main()
