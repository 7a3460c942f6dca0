"""The installed library, as a project outside of the tree uses it.

    library_test.py BUILD_DIRECTORY
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONSUMER = ROOT / "tests" / "consumer"
NO_KVM = 77
BUILD = None  # set from the command line
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


def call(*command, **options):
    """Runs a program that is expected to succeed; what it printed."""
    done = subprocess.run(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    if done.returncode:
        raise AssertionError(f"{command[0]}: exit status {done.returncode}\n{done.stdout}")
    return done.stdout


class Library(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = pathlib.Path(tempfile.mkdtemp(prefix="vmm-library-"))
        call("meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", cls.scratch / "root")
        (found,) = (cls.scratch / "root").rglob("vmm.pc")
        cls.libdir = found.parent.parent
        (version,) = (cls.scratch / "root").rglob("vmm/vmm/version.h")
        cls.headers = version.parent.parent
        cls.environment = dict(os.environ, PKG_CONFIG_PATH=str(found.parent), LD_LIBRARY_PATH=str(cls.libdir))
        cls.shared = sorted(cls.libdir.glob("libvmm.so.*.*.*"))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.scratch)

    def need_shared(self):
        if not self.shared:
            self.skipTest("this build has no shared library")

    def run_consumer(self, program):
        done = subprocess.run(
            [program], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
        )
        if done.returncode == NO_KVM:
            self.skipTest(f"needs KVM: {done.stdout.strip()}")
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertRegex(done.stdout, r"^vmm \d+\.\d+\.\d+: as expected\n$")

    def test_headers_are_those_of_the_tree_and_complete(self):
        installed = {path.relative_to(self.headers).as_posix(): path for path in self.headers.rglob("*.h")}
        self.assertGreater(len(installed), 50)
        for name, path in installed.items():
            self.assertTrue((ROOT / "src" / name).is_file(), f"{name} does not lie there in src/")
            for included in INCLUDE.findall(path.read_text(encoding="utf-8")):
                self.assertTrue(included in installed, f"{name} includes {included}, which is not installed")

    def test_examples_include_what_is_installed(self):
        examples = sorted((ROOT / "examples").glob("*.cc"))
        self.assertGreater(len(examples), 10)
        for example in examples:
            for included in INCLUDE.findall(example.read_text(encoding="utf-8")):
                self.assertTrue((self.headers / included).is_file(), f"{example.name}: {included} is not installed")

    def test_every_header_compiles(self):
        names = sorted(path.relative_to(self.headers).as_posix() for path in self.headers.rglob("*.h"))
        text = self.scratch / "headers.cc"
        text.write_text("".join(f"#include <{name}>\n" for name in names), encoding="utf-8")
        flags = call("pkg-config", "--cflags", "vmm", env=self.environment).split()
        call(os.environ.get("CXX", "c++"), "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", *flags, text)

    def test_c_header_is_c(self):
        text = self.scratch / "header.c"
        text.write_text("#include <vmm/c_api.h>\nint main(void) { return vmm_version() == 0; }\n", encoding="utf-8")
        flags = call("pkg-config", "--cflags", "vmm", env=self.environment).split()
        call("cc", "-std=c11", "-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Werror", *flags, text)

    def test_make_with_pkg_config(self):
        self.need_shared()
        folder = self.scratch / "make"
        shutil.copytree(CONSUMER, folder)
        call("make", "-C", folder, env=self.environment)
        needed = call("readelf", "-d", folder / "consumer-static")
        self.assertNotIn("libvmm", needed)
        self.run_consumer(folder / "consumer-shared")
        self.run_consumer(folder / "consumer-static")

    def test_meson(self):
        self.need_shared()
        folder = self.scratch / "meson"
        call("meson", "setup", folder, CONSUMER, "-Dbuildtype=plain", env=self.environment)
        call("ninja", "-C", folder, env=self.environment)
        self.assertIn("libvmm.so", call("readelf", "-d", folder / "consumer-shared"))
        self.assertNotIn("libvmm", call("readelf", "-d", folder / "consumer-static"))
        self.run_consumer(folder / "consumer-shared")
        self.run_consumer(folder / "consumer-static")

    def test_subproject_of_meson(self):
        folder = self.scratch / "super"
        (folder / "subprojects").mkdir(parents=True)
        (folder / "subprojects" / "vmm").symlink_to(ROOT)
        shutil.copy(CONSUMER / "consumer.cc", folder)
        (folder / "meson.build").write_text(
            "project('super', 'cpp', default_options: ['cpp_std=c++20'])\n"
            "vmm = dependency('vmm', fallback: 'vmm')\n"
            "executable('consumer', 'consumer.cc', dependencies: vmm)\n",
            encoding="utf-8",
        )
        environment = dict(os.environ, PKG_CONFIG_PATH="")
        call("meson", "setup", folder / "build", folder, "--wrap-mode=forcefallback", env=environment)
        # What it would do is enough: compiling the library again takes minutes.
        commands = call("ninja", "-C", folder / "build", "-n", "consumer")
        self.assertIn("Linking target consumer", commands)
        self.assertNotIn("_test", commands)

    def test_shared_library_shows_its_own_names_only(self):
        self.need_shared()
        (library,) = self.shared
        version = library.name.removeprefix("libvmm.so.")
        major, minor, _ = version.split(".")
        soname = f"libvmm.so.{major}.{minor}" if major == "0" else f"libvmm.so.{major}"
        self.assertIn(f"[{soname}]", call("readelf", "-d", library))
        names = [line.split()[-1] for line in call("nm", "-D", "--defined-only", library).splitlines()]
        self.assertGreater(len(names), 100)
        strange = [name for name in names if not re.match(r"(vmm_|_Z(N|NK|TIN|TSN|TVN|TTN)3vmm)", name)]
        self.assertEqual(strange, [])

    def test_version_is_the_same_everywhere(self):
        told = call("pkg-config", "--modversion", "vmm", env=self.environment).strip()
        (program,) = (self.scratch / "root").rglob("bin/vmm")
        self.assertEqual(call(program, "--version"), f"vmm {told}\n")


if __name__ == "__main__":
    BUILD = pathlib.Path(sys.argv.pop(1)).resolve()
    unittest.main()
