"""The manual page and the completion know what the command knows.

    manual_test.py PATH-OF-VMM
"""
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import vmm_process
from vmm_process import vmm

ROOT = pathlib.Path(__file__).resolve().parents[2]
MANUAL = ROOT / "docs/vmm.1"
COMPLETION = ROOT / "completion/vmm.bash"
EXIT_CODES = ROOT / "src/cli/exit_code.h"


def options_of(command):
    """The long options in the help of a command."""
    return set(re.findall(r"^  (?:-\w,)?(--[a-z-]+)", vmm(command, "--help")[1], re.MULTILINE))


def exit_codes():
    """Number and meaning of each row of the table in the source."""
    text = EXIT_CODES.read_text()
    numbers = dict(re.findall(r"(kExit\w+) = (\d+),", text))
    return {numbers[name]: meaning for name, meaning in re.findall(r'\{(kExit\w+), "([^"]+)"\}', text)}


class Manual(unittest.TestCase):
    def test_has_every_option(self):
        plain = MANUAL.read_text().replace("\\-", "-")
        options = options_of("run")
        self.assertIn("--kernel", options)
        self.assertEqual([option for option in sorted(options) if option not in plain], [])

    def test_has_every_option_of_test(self):
        plain = MANUAL.read_text().replace("\\-", "-")
        section = plain.split(".SH OPTIONS OF VMM TEST")[1].split(".SH ")[0]
        self.assertEqual([option for option in options_of("test") - {"--help"} if option not in section], [])

    def test_has_every_control_command(self):
        page = (ROOT / "docs/control.md").read_text()
        source = (ROOT / "src/cli/control_protocol.cc").read_text()
        commands = re.findall(r'CommandSpec\{\s*"([a-z-]+)"', source)
        self.assertGreater(len(commands), 5)
        for command in commands:
            self.assertIn(f"| `{command}` |", page)
        for code in set(re.findall(r'(?:return|refuse\() ?"([a-z_]+)"', source)):
            self.assertIn(f"| `{code}` |", page)

    def test_has_every_exit_status(self):
        plain = MANUAL.read_text().replace("\\-", "-")
        self.assertGreater(len(exit_codes()), 10)
        for number, meaning in exit_codes().items():
            self.assertIn(f"\n{number}|{meaning}\n", plain)

    def test_docs_have_every_exit_status(self):
        page = (ROOT / "docs/cli.md").read_text()
        for number, meaning in exit_codes().items():
            self.assertIn(f"| {number} | {meaning}", page)

    @unittest.skipUnless(shutil.which("groff"), "needs groff")
    def test_is_sound(self):
        done = subprocess.run(
            ["groff", "-t", "-man", "-ww", "-Tutf8", "-z", str(MANUAL)], capture_output=True, text=True
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))


@unittest.skipUnless(shutil.which("bash"), "needs bash")
class Completion(unittest.TestCase):
    def complete(self, *words, folder="."):
        """What bash offers for the last of the words, which it has split as it does."""
        script = f"""
            source {COMPLETION}
            COMP_WORDS=("$@")
            COMP_CWORD=$(($# - 1))
            _vmm
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        done = subprocess.run(
            ["bash", "-c", script, "test", *words], capture_output=True, text=True, cwd=folder
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout.split()

    def test_commands(self):
        self.assertEqual(self.complete("vmm", "do"), ["doctor"])
        self.assertIn("run", self.complete("vmm", ""))
        self.assertEqual(self.complete("vmm", "help", "ins"), ["inspect"])

    def test_offers_exactly_the_options(self):
        for command in ("run", "test", "ctl", "stat", "top", "trace", "profile", "inspect", "diff", "doctor"):
            self.assertEqual(set(self.complete("vmm", command, "--")), options_of(command))

    def test_option_values(self):
        self.assertEqual(self.complete("vmm", "run", "--irqchip", "s"), ["split"])
        self.assertEqual(self.complete("vmm", "run", "--irqchip", "=", "k"), ["kernel"])
        self.assertEqual(self.complete("vmm", "run", "--boot", "="),
                         ["auto", "linux64", "bzimage", "pvh", "multiboot", "multiboot2", "flat"])
        self.assertEqual(self.complete("vmm", "run", "--serial", "u"), ["unix:"])

    def test_commands_of_ctl(self):
        self.assertEqual(self.complete("vmm", "ctl", "/tmp/vm.ctl", "bal"), ["balloon"])
        self.assertEqual(self.complete("vmm", "ctl", "--json", "/tmp/vm.ctl", "st"), ["status"])
        self.assertEqual(self.complete("vmm", "ctl", "/tmp/vm.ctl", "net", "net0", "d"), ["down"])

    def test_quirks_and_their_values(self):
        self.assertEqual(self.complete("vmm", "run", "--quirk", "sys"), ["syscall-fixup="])
        self.assertEqual(self.complete("vmm", "run", "--quirk", "syscall-fixup", "=", "of"), ["off"])

    def test_options_after_a_value(self):
        self.assertEqual(self.complete("vmm", "run", "--mem", "1G", "--kas"), ["--kaslr"])
        self.assertEqual(self.complete("vmm", "run", "--kaslr", "--ini"), ["--initrd", "--initrd-unpack"])

    def test_files(self):
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "bzImage").touch()
            (pathlib.Path(folder) / "boot").mkdir()
            self.assertEqual(sorted(self.complete("vmm", "run", "--kernel", "b", folder=folder)),
                             ["boot/", "bzImage"])
            self.assertEqual(self.complete("vmm", "inspect", "bz", folder=folder), ["bzImage"])
            self.assertEqual(self.complete("vmm", "run", "--serial", "file", ":", "bz", folder=folder),
                             ["bzImage"])


if __name__ == "__main__":
    vmm_process.main()
