"""Every header compiles alone, with the project's own flags, and twice in a row.

    headers_test.py BUILD_DIRECTORY     (with Meson's compile_commands.json)
"""
import concurrent.futures
import json
import os
import pathlib
import shlex
import subprocess
import sys
import unittest

from source_tree import ROOT, files

BUILD = None  # set from the command line


class Compiler:
    """Compiles small texts as if they stood beside a given file of the project."""

    def __init__(self, build):
        self.build = pathlib.Path(build).resolve()
        self.commands = {}
        for entry in json.loads((self.build / "compile_commands.json").read_text(encoding="utf-8")):
            path = (pathlib.Path(entry["directory"]) / entry["file"]).resolve()
            if path.suffix == ".cc" and path.is_relative_to(ROOT):
                folder = path.relative_to(ROOT).parent.as_posix()
                self.commands.setdefault(folder, entry["command"])
        # The same names in every run: ccache then knows the texts again.
        self.scratch = self.build / "headers-alone"
        self.scratch.mkdir(exist_ok=True)

    def flags_for(self, path):
        """The command of a source file in the same folder, or in the nearest one above that has any."""
        folder = pathlib.PurePosixPath(path).parent
        for candidate in (folder, *folder.parents):
            if command := self.commands.get(candidate.as_posix()):
                break
        else:
            # A folder without sources: the flags of a folder that may see all the others.
            other = "tests/unit/virtio" if path.startswith("tests/") else "src/vmm"
            command = self.commands.get(other) or next(iter(self.commands.values()))
        words, kept, skip = shlex.split(command), [], False
        dropped = ["-o", "-c", "-MF", "-MQ"]
        # The library's headers stand without the precompiled one; those of the tests need GoogleTest anyway, which takes
        # seconds to read.
        if path.startswith("src/"):
            dropped.append("-include")
        for word in words:
            if skip:
                skip = False
            elif word in dropped:
                skip = True
            elif word not in ("-MD", "-MMD", "-g"):
                kept.append(word)
        # The words that name the source file go with -c. Tests name their helpers from the project's root.
        root = [] if path.startswith("src/") else [f"-I{ROOT}"]
        return [word for word in kept if not word.endswith(".cc")] + root

    def errors(self, path, text):
        """What the compiler says against this text; empty when it is content."""
        name = path.replace("/", "_")
        source = self.scratch / f"{name}.cc"
        source.write_text(text, encoding="utf-8")
        # An object file rather than -fsyntax-only: ccache remembers it.
        command = self.flags_for(path) + ["-O0", "-c", str(source), "-o", str(source) + ".o"]
        done = subprocess.run(command, cwd=self.build, capture_output=True, text=True, check=False)
        return "" if done.returncode == 0 else done.stderr or f"exit status {done.returncode}"


def alone(path):
    """A text that includes nothing but this header, twice."""
    name = path.removeprefix("src/")
    include = f'#include "{name}"\n' if path.startswith("src/") else f'#include "{ROOT}/{path}"\n'
    return include + include


class Headers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.compiler = Compiler(BUILD)

    def test_every_header_compiles_alone(self):
        headers = [
            path
            for path in files("src", "tests", "examples", "bench")
            if path.endswith(".h") and not path.endswith("/precompiled.h")  # those are source files of their own
        ]
        self.assertGreater(len(headers), 30)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            answers = pool.map(lambda path: (path, self.compiler.errors(path, alone(path))), headers)
            failed = [f"{path}:\n{errors}" for path, errors in answers if errors]
        self.assertFalse(failed, "\n" + "\n".join(failed))

    def test_a_header_that_needs_another_is_caught(self):
        text = "inline std::string greeting() { return {}; }\n"
        self.assertIn("string", self.compiler.errors("src/base/needs_another.h", text))

    def test_a_header_that_cannot_come_twice_is_caught(self):
        text = "struct Twice {};\n" * 2
        self.assertIn("Twice", self.compiler.errors("src/base/twice.h", text))

    def test_the_flags_are_the_projects(self):
        text = "inline unsigned char narrow(int wide) { return wide; }\n"
        self.assertIn("-Werror", " ".join(self.compiler.flags_for("src/base/narrow.h")))
        self.assertIn("conversion", self.compiler.errors("src/base/narrow.h", text))


if __name__ == "__main__":
    BUILD = sys.argv.pop(1)
    unittest.main(verbosity=2)
