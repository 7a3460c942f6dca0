#!/usr/bin/env python3
"""Measures vmm against the floor and its peers; docs/benchmarks.md says what and how.

    bench/run.py --build BUILD [--rounds 30] [--kernel BZIMAGE] [--only start,exits,interrupts,load,memory] [--json FILE]

Builds nothing: BUILD is a Meson build folder (an optimized one, or the figures mean little). Contestants
that are not there are left out. In each round every contestant runs once, the first one taking turns;
one round to warm up does not count; figures are medians.
"""
import argparse
import contextlib
import datetime
import json
import os
import pathlib
import re
import select
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time

import entry_probe

MEMORY_MIB = 512
PROBE_FORMATS = ("lz4", "gzip", "zstd")
# How a figure of vmm's may compare with the floor's: what the project promises.
TARGETS = {
    ("start, no chips", "vmm"): 1.5,
    ("pio exit", "vmm"): 1.10,
    ("mmio exit", "vmm"): 1.10,
    ("pit read", "vmm, user"): 1.15,
    ("lapic read", "vmm, user"): 1.15,
    ("lapic eoi", "vmm, user"): 1.15,
    **{(f"load {fmt}", "vmm"): 1.2 for fmt in PROBE_FORMATS},
}
MEMORY_TARGET_KIB = 4096


class Figures:
    """Samples by measurement and contestant, in the order in which they were first seen."""

    def __init__(self):
        self.rows = {}

    def add(self, measurement, contestant, unit, value):
        row = self.rows.setdefault((measurement, contestant), {"unit": unit, "samples": []})
        row["samples"].append(value)

    def table(self):
        """One dictionary a row; the first contestant of a measurement is what the others are compared with."""
        base = {}
        out = []
        for (measurement, contestant), row in self.rows.items():
            median = statistics.median(row["samples"])
            base.setdefault(measurement, median)
            target = TARGETS.get((measurement, contestant))
            ratio = median / base[measurement] if base[measurement] else None
            out.append({
                "measurement": measurement, "contestant": contestant, "unit": row["unit"],
                "median": median, "min": min(row["samples"]), "max": max(row["samples"]),
                "runs": len(row["samples"]), "ratio": ratio, "target": target,
                "met": None if target is None or ratio is None else ratio <= target,
            })
        return out


class Bench:
    def __init__(self, args):
        self.args = args
        self.dir = pathlib.Path(args.build) / "bench"
        self.figures = Figures()
        self.vmm = args.vmm or self.find_vmm()
        self.qemu = shutil.which("qemu-system-x86_64")
        self.lkvm = shutil.which("lkvm") or shutil.which("kvmtool")

    def find_vmm(self):
        for place in ("src/cli/vmm", "vmm"):
            program = pathlib.Path(self.args.build) / place
            if program.is_file() and os.access(program, os.X_OK):
                return str(program)
        return None

    def run_once(self, command):
        """One run under spawn_time: its JSON."""
        launcher = [str(self.dir / "spawn_time"), "--timeout-ms", "120000"]
        if self.args.cpu is not None:
            launcher += ["--cpu", str(self.args.cpu)]
        if self.args.realtime:  # the launcher must see the letters while the contestants keep all CPUs
            launcher, command = ["chrt", "-f", "20", *launcher], ["chrt", "-f", "10", *command]
        done = subprocess.run(launcher + ["--"] + command, capture_output=True, timeout=180, check=False)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}: {done.stderr.decode(errors='replace')}")
        result = json.loads(done.stdout)
        result["stderr"] = done.stderr.decode(errors="replace").strip()
        return result

    def byte_time(self, command, result, byte):
        """Nanoseconds until the guest's byte arrived; without it the run is worth nothing."""
        for got, ns in result["bytes"]:
            if got == byte:
                return ns
        sys.exit(f"{' '.join(command)}: {byte!r} never came (status {result['status']}): {result['stderr']}")

    def interleave(self, contestants, record):
        """Runs {name: command} in turn, args.rounds times; record(name, command, result) takes a run that counts."""
        names = list(contestants)
        for turn in range(self.args.rounds + 1):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                result = self.run_once(contestants[name])
                if turn > 0:
                    record(name, contestants[name], result)
            if sys.stderr.isatty():
                print(f"\r  round {turn} of {self.args.rounds} ", end="", file=sys.stderr, flush=True)
        if sys.stderr.isatty():
            print("\r" + " " * 30, end="\r", file=sys.stderr)

    def add_in_order(self, contestants, measurements):
        """Rows in the contestants' order, whoever ran first."""
        for measurement, unit in measurements:
            for name in contestants:
                self.figures.rows[(measurement, name)] = {"unit": unit, "samples": []}

    # -- the measurements ----------------------------------------------------------------------

    def vmm_flat(self, guest, irqchip):
        return [self.vmm, "run", "--boot", "flat,addr=0x1000,mode=real", "--kernel", str(guest),
                "--irqchip", irqchip, "--mem", f"{MEMORY_MIB}M", "--serial", "stdio"]

    def qemu_microvm(self, rom):
        return [self.qemu, "-M", "microvm,accel=kvm", "-m", str(MEMORY_MIB), "-nodefaults", "-display",
                "none", "-serial", "stdio", "-bios", str(rom),
                "-device", "isa-debug-exit,iobase=0xf4,iosize=1"]

    def measure_start(self):
        """exec to the first serial byte of one 14-byte guest, and the CPU time of the whole run."""
        guest = self.dir / "first_byte.bin"
        floor = [str(self.dir / "floor"), "--mem", str(MEMORY_MIB)]
        # By measurement, the first of each is what the others are compared with; all run in one series.
        groups = {
            "start, no chips": {"floor": floor + [str(guest)]},
            "start, chips in the kernel": {"floor": floor + ["--irqchip", str(guest)]},
        }
        if self.vmm:
            groups["start, no chips"]["vmm"] = self.vmm_flat(guest, "none")
            groups["start, chips in the kernel"]["vmm"] = self.vmm_flat(guest, "kernel")
            groups["start, chips in the kernel"]["vmm, split"] = self.vmm_flat(guest, "split")
        if self.lkvm:
            groups["start, chips in the kernel"]["kvmtool"] = [
                self.lkvm, "run", "--mem", str(MEMORY_MIB), "--cpus", "1", "--console", "serial", "--kernel",
                str(guest)]
        if self.qemu:
            groups["start, chips in the kernel"]["qemu microvm"] = self.qemu_microvm(self.dir / "first_byte.rom")
        contestants = {(group, name): command for group, commands in groups.items()
                       for name, command in commands.items()}
        for kind, unit in (("", "ms"), (" (CPU time)", "ms")):
            for group, commands in groups.items():
                self.add_in_order(commands, [(group + kind, unit)])

        def record(key, command, result):
            group, name = key
            self.figures.add(group, name, "ms", self.byte_time(command, result, "!") / 1e6)
            self.figures.add(group + " (CPU time)", name, "ms", (result["user_us"] + result["sys_us"]) / 1e3)

        self.interleave(contestants, record)

    @contextlib.contextmanager
    def counting_guest(self, name, count):
        """A guest that does each thing `count` times: the number is at offset 8 of its image."""
        with tempfile.NamedTemporaryFile(suffix=".bin") as guest:
            image = bytearray((self.dir / name).read_bytes())
            struct.pack_into("<Q", image, 8, count)
            guest.write(image)
            guest.flush()
            yield guest.name

    def measure_between(self, contestants, measurements, letters, count):
        """Microseconds for each of the `count` things between one letter of the guest's and the next."""
        self.add_in_order(contestants, [(measurement, "us") for measurement in measurements])

        def record(name, command, result):
            times = [self.byte_time(command, result, letter) for letter in letters]
            for measurement, begin, end in zip(measurements, times, times[1:]):
                self.figures.add(measurement, name, "us", (end - begin) / count / 1e3)

        self.interleave(contestants, record)

    def measure_exits(self):
        """The way from CPL 3 to the monitor and back, by port and by memory access; then to two chips."""
        count = self.args.exits
        with self.counting_guest("exit_loop.bin", count) as guest:
            floor = {"floor": [str(self.dir / "floor"), "--cpuid", "--mem", str(MEMORY_MIB), guest]}
            contestants = dict(floor)
            if self.vmm:
                contestants["vmm"] = self.vmm_flat(guest, "none")
            if self.qemu:
                contestants["qemu microvm"] = self.qemu_microvm(self.dir / "jump.rom") + [
                    "-device", f"loader,file={guest},addr=0x1000,force-raw=on"]
            self.measure_between(contestants, ("pio exit", "mmio exit"), "abc", count)
            # The chips may be here or in the kernel.
            contestants = dict(floor)
            if self.vmm:
                contestants |= {f"vmm, {chips}": self.vmm_flat(guest, chips)
                                for chips in ("user", "split", "kernel")}
            self.measure_between(contestants, ("pit read", "lapic read", "lapic eoi"), "cdef", count)

    def measure_interrupts(self):
        """IPIs between two sleeping CPUs and the local APIC's timer, wherever the local APICs are."""
        if not self.vmm:
            return
        count = self.args.interrupts
        with self.counting_guest("interrupts.bin", count) as guest:
            contestants = {
                f"vmm, {chips}": [self.vmm, "run", "--boot", "flat,addr=0x1000,mode=long", "--kernel", guest,
                                  "--irqchip", chips, "--cpus", "2", "--mem", "64M", "--serial", "stdio"]
                for chips in ("kernel", "split", "user")
            }
            self.measure_between(contestants, ("ipi round trip", "timer interrupt"), "abc", count)

    def measure_load(self):
        """exec until the kernel inside a bzImage is entered, against exec until the bare library has unpacked it."""
        if not self.args.kernel:
            print("  load: needs --kernel", file=sys.stderr)
            return
        probes = self.dir / "probes"
        probes.mkdir(exist_ok=True)
        decompress = str(self.dir / "decompress_floor")
        for fmt in PROBE_FORMATS:
            if fmt in ("lz4", "zstd") and not shutil.which(fmt):
                continue
            probe = probes / f"{fmt}.bzImage"
            entry_probe.make_probe(self.args.kernel, probe, fmt, decompress, self.dir / "first_byte.bin")
            contestants = {"bare library": [decompress, "--quiet", str(probe)]}
            if self.vmm:
                contestants["vmm"] = [self.vmm, "run", "--kernel", str(probe), "--mem", f"{MEMORY_MIB}M",
                                      "--irqchip", "none", "--serial", "stdio"]
            measurement = f"load {fmt}"
            self.add_in_order(contestants, [(measurement, "ms")])

            def record(name, command, result, measurement=measurement):
                self.figures.add(measurement, name, "ms", self.byte_time(command, result, "!") / 1e6)

            self.interleave(contestants, record)

    def measure_memory(self):
        """Private memory beside guest RAM: of vmm at the built-in guest's prompt, of QEMU with a halted guest."""
        rows = []
        if self.vmm:
            rows.append(("vmm", [self.vmm, "run", "--mem", f"{MEMORY_MIB}M", "--serial", "stdio"], b"vmm> "))
        if self.qemu:
            quiet = [word for word in self.qemu_microvm(self.dir / "first_byte.rom")]
            del quiet[quiet.index("isa-debug-exit,iobase=0xf4,iosize=1") - 1:]
            rows.append(("qemu microvm", quiet, b"!"))
        self.add_in_order([name for name, _, _ in rows], [("private memory", "KiB")])
        for _ in range(min(5, self.args.rounds)):
            for name, command, mark in rows:
                self.figures.add("private memory", name, "KiB", private_kib(command, mark))


def private_kib(command, mark):
    """Runs the command until its output has the mark; its private KiB outside the guest RAM mapping then."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        try:
            seen = b""
            deadline = time.monotonic() + 30
            while mark not in seen:
                ready, _, _ = select.select([child.stdout], [], [], max(0, deadline - time.monotonic()))
                chunk = os.read(child.stdout.fileno(), 4096) if ready else b""
                if not chunk:
                    sys.exit(f"{' '.join(command)}: {mark!r} never came")
                seen += chunk
            time.sleep(0.2)
            return sum_private(pathlib.Path(f"/proc/{child.pid}/smaps").read_text(encoding="utf-8"))
        finally:
            child.send_signal(signal.SIGKILL)


def sum_private(smaps):
    """KiB in Private_Clean and Private_Dirty of every mapping but the guest's RAM, which is known by its size."""
    total, found, skip = 0, False, False
    for line in smaps.splitlines():
        header = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if header:
            size = int(header[2], 16) - int(header[1], 16)
            skip = size >= MEMORY_MIB << 20
            found = found or skip
        elif line.startswith("Private_") and not line.startswith("Private_Hugetlb") and not skip:
            total += int(line.split()[1])
    if not found:
        sys.exit("no mapping of the size of the guest's memory")
    return total


def print_table(table):
    print("| measurement | contestant | median | min | ratio | target |")
    print("|---|---|---|---|---|---|")
    for row in table:
        target = "" if row["target"] is None else f"{row['target']:.2f} {'met' if row['met'] else 'MISSED'}"
        if row["measurement"] == "private memory" and row["contestant"] == "vmm":
            target = f"{MEMORY_TARGET_KIB} KiB {'met' if row['median'] <= MEMORY_TARGET_KIB else 'MISSED'}"
        print(f"| {row['measurement']} | {row['contestant']} | {row['median']:.2f} {row['unit']} "
              f"| {row['min']:.2f} | {row['ratio']:.2f} | {target} |")


def measure_all(bench, args, **more):
    """What --only names, printed and, with --json, written with `more`; the table."""
    for name in args.only.split(","):
        print(f"{name}: {getattr(bench, 'measure_' + name).__doc__}", file=sys.stderr)
        getattr(bench, "measure_" + name)()
    table = bench.figures.table()
    print_table(table)
    if args.json:
        document = {
            "date": datetime.date.today().isoformat(), "host": " ".join(os.uname()[i] for i in (0, 2, 4)),
            "cpus": os.cpu_count(), "rounds": args.rounds, **more, "figures": table,
        }
        pathlib.Path(args.json).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return table


def main():
    parser = argparse.ArgumentParser(description="measure vmm against the floor and its peers")
    parser.add_argument("--build", default="build", help="Meson build folder (default: build)")
    parser.add_argument("--vmm", help="the program, when it is not the build's")
    parser.add_argument("--kernel", help="a bzImage for the measurement of loading")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--exits", type=int, default=10000, help="exits of each kind in a run")
    parser.add_argument("--interrupts", type=int, default=500, help="interrupts of each kind in a run")
    parser.add_argument("--cpu", type=int, help="pin the contestants and the launcher to this CPU")
    parser.add_argument("--realtime", action="store_true",
                        help="run everything with real-time priority, away from a busy host's other work (chrt)")
    parser.add_argument("--only", default="start,exits,interrupts,load,memory")
    parser.add_argument("--json", help="also write the figures here")
    args = parser.parse_args()
    bench = Bench(args)
    if not bench.vmm:
        print("vmm itself is not there: only the others are measured", file=sys.stderr)
    measure_all(bench, args, exits=args.exits, kernel=args.kernel)


if __name__ == "__main__":
    main()
