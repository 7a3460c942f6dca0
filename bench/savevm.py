#!/usr/bin/env python3
"""Measures saving a guest to a file and going on from it, beside QEMU's savevm and loadvm; docs/benchmarks.md says what and how.

    bench/savevm.py --build BUILD [--rounds 10] [--json FILE]

As bench/run.py, whose figures these are. Files go to /var/tmp, which should be on a disk.
"""
import argparse
import contextlib
import json
import os
import pathlib
import select
import socket
import subprocess
import sys
import tempfile
import time

import run
from debugger import wait_for

MEMORY_MIB = 1024
TOUCHED_MIB = 64
SAVE = f"saving {MEMORY_MIB} MiB, {TOUCHED_MIB} MiB touched"
GO_ON = "from the file to the guest's first byte"


class SaveBench(run.Bench):
    def __init__(self, args, scratch):
        super().__init__(args)
        self.scratch = scratch
        self.guest = str(self.dir / "touch.bin")
        self.control, self.monitor = scratch / "control", scratch / "monitor"
        self.saved, self.disk = scratch / "saved", scratch / "disk.qcow2"

    def ours(self):
        return [self.vmm, "run", "--boot", "flat,addr=0x1000,mode=real", "--kernel", self.guest, "--irqchip", "none",
                "--mem", f"{MEMORY_MIB}M", "--serial", "stdio", "--control", str(self.control)]

    def qemus(self, *options):
        return [self.qemu, "-M", "microvm,accel=kvm", "-m", str(MEMORY_MIB), "-nodefaults", "-display", "none",
                "-serial", "stdio", "-bios", str(self.dir / "jump.rom"),
                "-device", f"loader,file={self.guest},addr=0x1000,force-raw=on",
                "-drive", f"if=none,id=saved,format=qcow2,file={self.disk}", *options]

    @contextlib.contextmanager
    def running(self, command):
        """The guest has touched its memory, and goes on."""
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL) as child:
            try:
                wait_for(child.stdout, b"a", command)
                yield child.stdout
            finally:
                child.kill()

    def timed(self, output, what):
        """Milliseconds; meanwhile the guest's output is read, which else would stop it."""
        begin = time.monotonic()
        done = what()
        while not done():
            if select.select([output], [], [], 0.001)[0]:
                os.read(output.fileno(), 65536)
        return (time.monotonic() - begin) * 1e3

    def save_ours(self):
        with self.running(self.ours()) as output:
            def save():
                child = subprocess.Popen([self.vmm, "snapshot", str(self.control), str(self.saved)])
                return lambda: child.poll() is not None
            took = self.timed(output, save)
        if not self.saved.is_file():
            sys.exit("vmm snapshot has made no file")
        return took

    def save_qemus(self):
        self.disk.unlink(missing_ok=True)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(self.disk), "64M"], check=True)
        command = self.qemus("-monitor", f"unix:{self.monitor},server=on,wait=off")
        with self.running(command) as output, socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(str(self.monitor))
            self.answer(monitor)
            def save():
                monitor.sendall(b"savevm saved\n")
                seen = bytearray()
                def done():
                    if select.select([monitor], [], [], 0)[0]:
                        seen.extend(monitor.recv(65536))
                    return b"(qemu) " in seen
                return done
            took = self.timed(output, save)
        listed = subprocess.run(["qemu-img", "snapshot", "-l", str(self.disk)], check=True, capture_output=True)
        if b"saved" not in listed.stdout:
            sys.exit("QEMU's savevm has saved nothing")
        return took

    @staticmethod
    def answer(monitor):
        seen = b""
        while b"(qemu) " not in seen:
            seen += monitor.recv(65536)

    def write(self):
        begin = time.monotonic()
        with open(self.scratch / "floor", "wb", buffering=0) as file:
            payload = b"v" * (1 << 20)
            for _ in range(TOUCHED_MIB):
                file.write(payload)
            os.fsync(file.fileno())
        took = (time.monotonic() - begin) * 1e3
        os.unlink(file.name)
        return took

    def measure_save(self):
        """To a file on a disk, until it is there; the floor writes as many bytes."""
        contestants = {"write(2), fsync(2)": self.write, "vmm": self.save_ours}
        if self.qemu:
            contestants["qemu, savevm"] = self.save_qemus
        self.add_in_order(contestants, [(SAVE, "ms")])
        names = list(contestants)
        for turn in range(self.args.rounds + 1):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                took = contestants[name]()
                if turn > 0:
                    self.figures.add(SAVE, name, "ms", took)

    def measure_load(self):
        """A process, from its exec to what the guest says next, with the files of measure_save."""
        contestants = {"vmm restore": [self.vmm, "restore", str(self.saved), "--serial", "stdio"]}
        if self.qemu:
            contestants["qemu, -loadvm"] = self.qemus("-loadvm", "saved")
        self.add_in_order(contestants, [(GO_ON, "ms")])

        def record(name, command, result):
            self.figures.add(GO_ON, name, "ms", self.byte_time(command, result, "b") / 1e6)
        self.interleave(contestants, record)

    def run_once(self, command):
        """The guest never ends: it is killed long after it has begun, on a busy host later still."""
        for patience in ("2000", "30000"):
            launcher = [str(self.dir / "spawn_time"), "--timeout-ms", patience, "--"]
            done = subprocess.run(launcher + command, capture_output=True, timeout=60, check=True)
            result = json.loads(done.stdout)
            if result["bytes"]:
                break
        return {**result, "stderr": done.stderr.decode(errors="replace")}


def main():
    parser = argparse.ArgumentParser(description="measure saving and going on against QEMU")
    parser.add_argument("--build", default="build", help="Meson build folder (default: build)")
    parser.add_argument("--vmm", help="the program, when it is not the build's")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", help="also write the figures here")
    args = parser.parse_args()
    args.cpu, args.realtime, args.only = None, False, "save,load"
    with tempfile.TemporaryDirectory(prefix="vmm-bench-", dir="/var/tmp") as folder:
        run.measure_all(SaveBench(args, pathlib.Path(folder)), args)


if __name__ == "__main__":
    main()
