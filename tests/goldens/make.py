#!/usr/bin/env python3
"""Makes the golden snapshots of this folder: what this version writes, and every later one has to restore.

    tests/goldens/make.py PATH-OF-VMM

One for each place of the interrupt controllers, VERSION-IRQCHIP.snap.gz: a guest of 2 MiB that sends back what arrives on
COM1, with a device for random numbers. Files of released versions are never made anew; tests/integration/snapshot_test.py
restores all that are here.
"""
import gzip
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))
from vmm_process import Guest  # noqa: E402


def make(vmm, irqchip, to):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        image, control, file = folder / "guest.bin", folder / "control", folder / "guest.snap"
        image.write_bytes(Guest().echo().code)
        command = [vmm, "run", "--kernel", image, "--boot", "flat,addr=0x1000,mode=long", "--mem", "2M",
                   "--irqchip", irqchip, "--rng", "--control", control]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as guest:
            try:
                guest.stdin.write(b"?")
                guest.stdin.flush()
                assert guest.stdout.read(1) == b"?"
                subprocess.run([vmm, "snapshot", control, file], check=True)
            finally:
                guest.kill()
        to.write_bytes(gzip.compress(file.read_bytes(), mtime=0))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    vmm = pathlib.Path(sys.argv[1]).resolve()
    version = subprocess.run([vmm, "--version"], check=True, capture_output=True, text=True).stdout.split()[-1]
    for irqchip in ("kernel", "split", "user"):
        make(vmm, irqchip, HERE / f"{version}-{irqchip}.snap.gz")


if __name__ == "__main__":
    main()
