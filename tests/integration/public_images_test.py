"""Bare-metal images that Debian ships, unchanged: the Xen hypervisor (Multiboot) and Memtest86+ (Linux boot protocol).

They are downloaded once into build/public-images (PUBLIC_IMAGES names another place); without a way to get them the
tests are skipped, and say so.
"""
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
import unittest

from guest import ROOT, Machine

CACHE = pathlib.Path(os.environ.get("PUBLIC_IMAGES", ROOT / "build/public-images"))


def package(name):
    """The folder with a package's files, downloaded when it is not there yet."""
    folder = CACHE / name
    if folder.exists():
        return folder
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise unittest.SkipTest(f"there is no apt-get to download the package {name} with")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as work:
        got = subprocess.run(["apt-get", "download", name], cwd=work, capture_output=True, timeout=300)
        archives = list(pathlib.Path(work).glob("*.deb"))
        if got.returncode != 0 or len(archives) != 1:
            why = got.stderr.decode(errors="replace").strip().splitlines()
            raise unittest.SkipTest(f"the package {name} cannot be downloaded: {why[-1] if why else got.returncode}")
        subprocess.run(["dpkg-deb", "-x", archives[0], f"{work}/files"], check=True)
        os.rename(f"{work}/files", folder)
    return folder


def needs_kvm():
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise unittest.SkipTest(f"/dev/kvm cannot be used: {error.strerror}") from None


class Xen(unittest.TestCase):
    def setUp(self):
        needs_kvm()
        boot = package("xen-hypervisor-4.17-amd64") / "boot"
        self.image = next(path for path in boot.iterdir() if path.name.endswith(".gz"))

    def run_xen(self, *arguments):
        options = ["--kernel", str(self.image), "--mem", "256M", "--no-reboot"]
        options += ["--cmdline", "console=com1 com1=115200 loglvl=all", *arguments]
        with Machine(options) as machine:
            machine.close_input()
            machine.wait_for_end()
            return machine.text.replace("\r", "")

    def test_prints_its_banner_and_misses_the_dom0(self):
        text = self.run_xen()
        self.assertRegex(text, r"\(XEN\) Xen version 4\.17")
        self.assertIn("Bootloader: vmm", text)
        self.assertIn("Command line: console=com1 com1=115200 loglvl=all", text)
        self.assertIn("dom0 kernel not specified", text)

    def test_probes_the_machine_when_there_is_a_module(self):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as module:
            module.write("this is no kernel\n")
            module.flush()
            text = self.run_xen("--module", f"{module.name},an argument")
        self.assertRegex(text, r"CPU Vendor: ")
        self.assertRegex(text, r"Detected [0-9.]+ MHz processor")
        self.assertIn("Using ACPI", text)
        self.assertIn("Brought up 1 CPUs", text)
        self.assertIn("Could not construct domain 0", text)

class Memtest(unittest.TestCase):
    def setUp(self):
        needs_kvm()
        self.image = package("memtest86+") / "boot/memtest86+x64.bin"

    def test_shows_its_test_screen(self):
        options = ["--kernel", str(self.image), "--mem", "32M", "--cmdline", "console=ttyS0,115200"]
        with Machine(options) as machine:
            for part in (r"Memtest86\+ v6", r"Memory  : +32MB", r"CPU: 1 Cores", r"Status: Testing", r"Errors: 0"):
                machine.wait_for(part)
            # It tests memory for ever.
            machine.process.terminate()
            self.assertEqual(machine.wait_for_end(), 130)


if __name__ == "__main__":
    unittest.main()
