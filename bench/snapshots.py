#!/usr/bin/env python3
"""Measures making, saving, resetting and cloning machines against the bare ioctls; docs/benchmarks.md says what and how.

    bench/snapshots.py --build BUILD [--rounds 30] [--json FILE]

As bench/run.py, whose figures these are; all contestants run in one process (bench/snapshot_bench.cc).
"""
import argparse
import subprocess
import sys
import tempfile

import run

# How a figure may compare with the first contestant's.
TARGETS = {
    ("create, run, destroy 2 MiB", "vmm"): 1.25,
    **{(f"reset, {pages} pages", "vmm"): 2.0 for pages in (10, 100, 1000, 10000)},
    ("clone of 256 MiB", "vmm"): 1.5,
    ("snapshot of 1 GiB, 64 MiB touched", "vmm"): 1.3,
    **{(f"restore of {mib} MiB to its first instruction", "vmm"): 1.5 for mib in (128, 2048)},
}
FASTER_THAN_FORK = 5
SIZE_COUNTS = 1.1  # 2 GiB against 128 MiB


class SnapshotBench(run.Bench):
    def measure_all(self):
        """In-process: one sample a line."""
        with tempfile.TemporaryDirectory(prefix="vmm-bench-", dir="/var/tmp") as folder:
            command = [str(self.dir / "snapshot_bench"), str(self.args.rounds), folder]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}: status {done.returncode}")
        samples = [line.split("\t") for line in done.stdout.splitlines()]
        # The yardstick first, whoever ran first.
        names = {"floor": 0, "memcpy and registers": 0, "mmap and ioctls": 0, "sparse copy": 0, "vmm, mapped": 0}
        order = list(dict.fromkeys(measurement for measurement, _, _ in samples))
        for measurement, contestant, us in sorted(samples, key=lambda s: (order.index(s[0]), names.get(s[1], 1))):
            self.figures.add(measurement, contestant, "us", float(us))


def more(table):
    """What the promises compare beside the first contestant."""
    median = {(row["measurement"], row["contestant"]): row["median"] for row in table}
    for pages in (10, 100, 1000, 10000):
        times = median[f"reset, {pages} pages", "fork and exit"] / median[f"reset, {pages} pages", "vmm"]
        yield f"reset, {pages} pages: {times:.1f} times faster than fork and exit", times >= FASTER_THAN_FORK
    small, large = (median[f"restore of {mib} MiB to its first instruction", "vmm"] for mib in (128, 2048))
    yield f"restore: 2 GiB takes {large / small:.2f} times what 128 MiB take", large <= SIZE_COUNTS * small


def main():
    parser = argparse.ArgumentParser(description="measure snapshots, resets and clones against the bare ioctls")
    parser.add_argument("--build", default="build", help="Meson build folder (default: build)")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", help="also write the figures here")
    args = parser.parse_args()
    args.vmm, args.only = None, "all"
    run.TARGETS = TARGETS
    table = run.measure_all(SnapshotBench(args), args)
    for line, met in more(table):
        print(line + ("" if met else " (MISSED)"))


if __name__ == "__main__":
    main()
