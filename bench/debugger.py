#!/usr/bin/env python3
"""Measures the gdb server against QEMU's, core files and the flight recorder; docs/benchmarks.md says what and how.

    bench/debugger.py --build BUILD [--rounds 10] [--only steps,condition,memory,core,recorder] [--json FILE]

As bench/run.py, whose rounds and figures these are. bench/gdb_client.cc is the debugger for everybody.
"""
import argparse
import contextlib
import os
import pathlib
import select
import struct
import subprocess
import sys
import tempfile
import time

import run

GUEST_MIB = 512
CORE_MIB = 256  # written before a core is taken
# How a figure may compare with the first contestant's.
TARGETS = {
    ("step", "vmm, in a range"): 1 / 0.3,
    ("step", "vmm"): 1 / 0.3,
    **{(f"core file, {where}", "vmm"): 1 / 0.8 for where in ("on disk", "in memory")},
    **{(f"{kind} exit, recorder", "on"): 1.03 for kind in ("pio", "mmio")},
}
# Of QEMU's rate, at least.
QEMU_TIMES = {"step": 2, "false condition": 5, "memory read": 10}
NOT_OFFERED = 3  # the client's status


class DebuggerBench(run.Bench):
    def __init__(self, args, scratch):
        super().__init__(args)
        self.scratch = scratch
        self.socket = str(scratch / "gdb")
        self.guest = str(self.dir / "debug.bin")
        image = pathlib.Path(self.guest).read_bytes()
        self.loop = [hex(address) for address in struct.unpack_from("<2Q", image, 8)]

    def ours(self, *options):
        return self.vmm_flat(self.guest, "auto") + list(options)

    @contextlib.contextmanager
    def running(self, command):
        """The guest has said 'a', and goes on."""
        pathlib.Path(self.socket).unlink(missing_ok=True)
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL) as child:
            try:
                wait_for(child.stdout, b"a", command)
                yield
            finally:
                child.kill()

    def stubs(self):
        """Machines that can be debugged at self.socket: {contestant: command}."""
        commands = {"vmm": self.ours("--gdb", f"unix:{self.socket}")}
        if self.qemu:
            commands["qemu"] = self.qemu_microvm(self.dir / "jump.rom") + [
                "-device", f"loader,file={self.guest},addr=0x1000,force-raw=on",
                "-gdb", f"unix:{self.socket},server=on,wait=off"]
        return commands

    def debug(self, command, *measurement, first=None):
        """A machine of its own, alone on the host: its guest would keep a processor busy beside others'."""
        with self.running(command):
            if first:
                self.client(*first)
            return self.client(*measurement)

    def client(self, *measurement):
        """Nanoseconds of one; nothing when the stub does not offer it."""
        command = [str(self.dir / "gdb_client"), self.socket, *self.loop, *map(str, measurement)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode == NOT_OFFERED:
            return None
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}: {done.stderr}")
        return float(done.stdout)

    def compare(self, measurement, unit, scale, contestants):
        """Calls {contestant: function} in turn; what one returns, divided by `scale`, is its figure."""
        self.add_in_order(contestants, [(measurement, unit)])
        names = list(contestants)
        for turn in range(self.args.rounds + 1):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                value = contestants[name]()
                if turn > 0 and value is not None:
                    self.figures.add(measurement, name, unit, value / scale)

    def measure_steps(self):
        """An instruction at a time: asked for and told, or a range of addresses at the server's; bare: KVM_RUN alone."""
        count = self.args.steps
        floor = [str(self.dir / "floor"), "--cpuid", "--mem", "64", "--steps", str(count), self.guest]
        contestants = {"bare": lambda: float(subprocess.check_output(floor))}
        stubs = self.stubs()
        for name, command in stubs.items():
            contestants[name] = lambda command=command: self.debug(command, "steps", count)
        contestants["vmm, in a range"] = lambda: self.debug(stubs["vmm"], "range", count)
        self.compare("step", "us", 1e3, contestants)

    def measure_condition(self):
        """A breakpoint in a debug register whose condition is false, judged where the stub offers that; and in memory."""
        count = self.args.conditions
        stubs = self.stubs()
        contestants = {name: lambda command=command: self.debug(command, "condition", count, 1)
                       for name, command in stubs.items()}
        # QEMU's would end the guest where KVM does not know INT3.
        contestants["vmm, in memory"] = lambda: self.debug(stubs["vmm"], "condition", count, 0)
        self.compare("false condition", "us", 1e3, contestants)

    def measure_memory(self):
        """MiB of guest memory through packets of the size that the stub offers: bytes at random, which no runs shorten."""
        mib = self.args.memory
        contestants = {}
        for name, command in self.stubs().items():
            # Where hexadecimal digits are all that is offered it does not matter which.
            first = ("fill", mib) if name == "vmm" else None
            contestants[name] = lambda command=command, first=first: self.debug(command, "memory", mib, first=first)
        self.compare("memory read", "ms", 1e6, contestants)

    def measure_core(self):
        """A guest's core file with much written memory, against as many bytes by write(2), both until they are on the disk."""
        control = self.scratch / "core.ctl"
        payload = b"v" * (1 << 20)

        def written(path):
            begin = time.monotonic()
            with open(path, "wb", buffering=0) as file:
                for _ in range(CORE_MIB):
                    file.write(payload)
                os.fsync(file.fileno())
            os.unlink(path)
            return time.monotonic() - begin

        def dumped(path):
            begin = time.monotonic()
            subprocess.run([self.vmm, "core", str(control), str(path)], check=True, capture_output=True)
            took = time.monotonic() - begin
            os.unlink(path)
            return took

        with self.running(self.ours("--gdb", f"unix:{self.socket}", "--control", str(control))):
            self.client("fill", CORE_MIB)
            for where, folder in (("on disk", self.scratch), ("in memory", pathlib.Path("/dev/shm"))):
                path = folder / f"vmm-bench-{os.getpid()}.core"
                self.compare(f"core file, {where}", "ms", 1e-3, {
                    "write(2)": lambda path=path: written(path), "vmm": lambda path=path: dumped(path)})

    def measure_recorder(self):
        """Exits with and without the flight recorder."""
        count = self.args.exits
        with self.counting_guest("exit_loop.bin", count) as guest:
            self.measure_between({
                "off": self.vmm_flat(guest, "none") + ["--record-exits", "0"],
                "on": self.vmm_flat(guest, "none"),
            }, ("pio exit, recorder", "mmio exit, recorder"), "abc", count)


def wait_for(stream, mark, command):
    seen = b""
    deadline = time.monotonic() + 30
    while mark not in seen:
        ready, _, _ = select.select([stream], [], [], max(0, deadline - time.monotonic()))
        chunk = os.read(stream.fileno(), 4096) if ready else b""
        if not chunk:
            sys.exit(f"{' '.join(command)}: {mark!r} never came")
        seen += chunk


def compare_with_qemu(table):
    """Lines on how ours compares with QEMU's, for the measurements that have both."""
    medians = {(row["measurement"], row["contestant"]): row["median"] for row in table}
    for (measurement, contestant), median in medians.items():
        other = medians.get((measurement, "qemu"))
        if contestant.startswith("vmm") and other:
            times = other / median
            met = times >= QEMU_TIMES[measurement]
            yield f"{measurement}, {contestant}: {times:.2f} times QEMU's rate {'' if met else '(MISSED)'}".rstrip()


def main():
    parser = argparse.ArgumentParser(description="measure the gdb server, core files and the flight recorder")
    parser.add_argument("--build", default="build", help="Meson build folder (default: build)")
    parser.add_argument("--vmm", help="the program, when it is not the build's")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=5000, help="steps in a run")
    parser.add_argument("--conditions", type=int, default=1000, help="visits of a breakpoint in a run")
    parser.add_argument("--memory", type=int, default=64, help="MiB that are read in a run")
    parser.add_argument("--exits", type=int, default=20000, help="exits of each kind in a run")
    parser.add_argument("--cpu", type=int, help="pin the exits' contestants and the launcher to this CPU")
    parser.add_argument("--realtime", action="store_true",
                        help="run the exits' contestants with a real-time priority, for a host that has other work")
    parser.add_argument("--only", default="steps,condition,memory,core,recorder")
    parser.add_argument("--json", help="also write the figures here")
    args = parser.parse_args()
    run.TARGETS = TARGETS
    with tempfile.TemporaryDirectory(prefix="vmm-bench-") as folder:
        bench = DebuggerBench(args, pathlib.Path(folder))
        if not bench.vmm:
            sys.exit("vmm itself is not there: --build or --vmm")
        for line in compare_with_qemu(run.measure_all(bench, args)):
            print(line)


if __name__ == "__main__":
    main()
