"""Power cuts: a guest that writes and flushes without a pause is killed at random moments, and what it said it had flushed
has to be on the disk, with no record torn.

    power_cut_test.py PATH-OF-VMM PATH-OF-GUEST

POWER_CUTS is how many times for each kind of disk (10).
"""
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import time
import unittest

import vmm_process
from vmm_process import Running, needs_kvm, read_until

RECORD = 4096
PLACES = 64
CUTS = int(os.environ.get("POWER_CUTS", "10"))
MASK = (1 << 64) - 1
GUEST = None


def record(number):
    """What tests/guests/power_cut.S writes."""
    base = number * 0x9E3779B97F4A7C15
    return struct.pack("<512Q", number, *((base + i) & MASK for i in range(1, 512)))


def through_overlay(image, overlay):
    """The disk's bytes, by the format in docs/block.md."""
    disk = bytearray(image)
    start = int.from_bytes(overlay[40:48], "little")
    bits = overlay[4096:start]
    for sector in range(len(disk) // 512):
        if bits[sector // 8] >> sector % 8 & 1:
            disk[512 * sector:512 * (sector + 1)] = overlay[start + 512 * sector:start + 512 * (sector + 1)]
    return bytes(disk)


def problems(disk, flushed):
    """What is wrong with a disk on which every record up to this number was flushed."""
    found = []
    for place in range(PLACES):
        content = disk[place * RECORD:(place + 1) * RECORD]
        number = int.from_bytes(content[:8], "little")
        # The last record up to `flushed` that belongs here, or one that came later.
        least = flushed - (flushed - place) % PLACES
        if content == bytes(RECORD):
            if least > 0:
                found.append(f"record {least} was flushed and is not there")
        elif number % PLACES != place or content != record(number):
            found.append(f"place {place} holds what nobody wrote: a torn record {number}")
        elif number < least:
            found.append(f"record {least} was flushed, but {number} is there")
    return found


class Checks(unittest.TestCase):
    """The checks themselves."""

    def setUp(self):
        self.disk = b"".join(record(place if place else PLACES) for place in range(PLACES))

    def test_whole_disk_is_fine(self):
        self.assertEqual(problems(self.disk, PLACES), [])
        self.assertEqual(problems(bytes(PLACES * RECORD), 0), [])

    def test_what_is_lost_or_torn_is_found(self):
        self.assertEqual(len(problems(self.disk[:-RECORD] + bytes(RECORD), PLACES)), 1)
        self.assertEqual(len(problems(self.disk, PLACES + 1)), 1)
        torn = self.disk[:5000] + b"x" + self.disk[5001:]
        self.assertIn("torn", "".join(problems(torn, PLACES)))
        half = self.disk[:RECORD] + record(PLACES + 1)[:2048] + self.disk[RECORD + 2048:]
        self.assertIn("torn", "".join(problems(half, PLACES)))


@needs_kvm
class PowerCut(unittest.TestCase):
    def cut(self, options, read):
        """Runs the guest until a random moment. How many records it said it had flushed."""
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            folder = pathlib.Path(folder)
            image = folder / "image"
            with image.open("wb") as file:
                file.truncate(PLACES * RECORD)
            running = Running(self, ["run", "--kernel", GUEST, "--boot", "flat", "--mem", "4M", "--transport", "mmio",
                                     "--disk", options.format(image=image, folder=folder)],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            output = running.process.stdout
            said = read_until(output.fileno(), "\n").encode()
            time.sleep(random.uniform(0, 0.4))  # not to wait for something: this is the random moment
            running.process.kill()
            said += output.read()
            running.process.wait()
            errors = running.process.stderr.read().decode()
            running.close()
            lines = said.decode().split("\n")[:-1]
            self.assertTrue(lines, errors)
            self.assertNotIn("E", said.decode(), "a request failed")
            flushed = int(lines[-1], 16)
            self.assertEqual(problems(read(folder), flushed), [], f"after {flushed} records")
            return flushed

    def cuts(self, options, read=lambda folder: (folder / "image").read_bytes()):
        flushed = [self.cut(options, read) for _ in range(CUTS)]
        print(f"{options}: {CUTS} cuts, after {min(flushed)} to {max(flushed)} records", flush=True)
        # The moments were different ones.
        self.assertGreater(len(set(flushed)), min(CUTS, 2) - 1)

    def test_raw_image(self):
        self.cuts("path={image}")

    def test_direct_image(self):
        self.cuts("path={image},direct")

    def test_kept_overlay(self):
        self.cuts("path={image},cow={folder}/overlay",
                  lambda folder: through_overlay((folder / "image").read_bytes(), (folder / "overlay").read_bytes()))

    def test_limited_image(self):
        self.cuts("path={image},iops=2000,bps=4M")


if __name__ == "__main__":
    GUEST = os.path.abspath(sys.argv.pop(2))
    vmm_process.main()
