"""The library has no process-wide state: its objects hold no writable data beyond a short list.

    statics_test.py COMPILER... -- ARCHIVE...
"""
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

COMPILER = []  # set from the command line
ARCHIVES = []

# Writable objects that are allowed: demangled name -> reason.
ALLOWED = {
    "vmm::completion::load_zydis()::library":
        "a shared library, loaded once for the process and never changed",
    "vmm::completion::XsaveLayout::host()::layout":
        "where this processor keeps its state: the same for every machine of the process, written once",
    "vmm::host_quirks(vmm::kvm::System const&)::first":
        "what probing found out about this host: the same for every machine of the process, written once",
    "vmm::kvm::System::supported_cpuid() const::first":
        "what this host's KVM can show guests: likewise",
    "vmm::kvm::System::check()::first":
        "what this host's KVM can do: likewise",
    "vmm::kvm::System::msr_indices() const::first":
        "which MSRs this host's KVM lists: likewise",
    "vmm::x86::host_cpu_brand[abi:cxx11]()::brand":
        "the processor's name: likewise",
}


def allowed(name):
    """On the list, or a constant that the standard library's regular expressions make at their first use."""
    return name in ALLOWED or re.match(r"std::(__detail::_AnyMatcher|__cxx11::regex_traits)<", name) is not None


def writable(path):
    """Demangled names of the objects in writable sections that stay writable after relocation."""
    listing = subprocess.run(
        ["objdump", "--syms", "--demangle", str(path)], capture_output=True, text=True, check=True
    ).stdout
    found = []
    for line in listing.splitlines():
        if "\t" not in line:
            continue
        left, right = line.split("\t", 1)
        words = left.split()
        # Address, flags, section; then size and name.
        section = words[-1]
        name = right.split(maxsplit=1)[1].removeprefix(".hidden ")
        # Not the sections' own symbols, nor the slots through which exception tables refer to a function.
        if name == section or name.startswith("DW.ref."):
            continue
        if section.startswith((".data", ".bss", ".tbss", ".tdata")) and not section.startswith(".data.rel.ro"):
            found.append(name)
    return found


class Statics(unittest.TestCase):
    def test_the_library_holds_no_mutable_statics(self):
        self.assertTrue(ARCHIVES)
        unexpected = [
            f"{pathlib.Path(archive).name}: {name}"
            for archive in ARCHIVES
            for name in writable(archive)
            if not allowed(name.removeprefix("guard variable for "))
        ]
        self.assertFalse(unexpected, "\n" + "\n".join(unexpected))

    def test_each_kind_of_mutable_static_is_caught(self):
        text = """
            #include <string>
            int global_counter;
            static int file_counter = 3;
            thread_local int per_thread;
            const char* names[] = {"a", "b"};
            namespace { std::string text; }
            int bump() { static int local; return ++local + ++file_counter + ++per_thread + int(text.size()); }
            const std::string& lazy() { static const std::string once = "built at run time"; return once; }
        """
        found = self.compiled(text)
        for name in ("global_counter", "file_counter", "per_thread", "names", "text", "local", "once"):
            self.assertTrue(any(name in symbol for symbol in found), f"{name} is missing in {found}")

    def test_constants_are_no_statics(self):
        text = """
            #include <array>
            #include <string_view>
            struct Base { virtual ~Base() = default; virtual int f() { return 1; } };
            constexpr std::array<std::string_view, 2> kNames{"a", "b"};
            extern const char* const kTable[2];
            const char* const kTable[2] = {"a", "b"};
            std::string_view name(int i) { static constexpr int kOrder[] = {1, 0}; return kNames[kOrder[i]]; }
            Base* make() { return new Base; }
        """
        self.assertEqual(self.compiled(text), [])

    def compiled(self, text):
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder) / "sample.cc"
            source.write_text(text, encoding="utf-8")
            target = source.with_suffix(".o")
            subprocess.run(
                [*COMPILER, "-std=c++20", "-fPIE", "-c", str(source), "-o", str(target)], check=True
            )
            return writable(target)


if __name__ == "__main__":
    split = sys.argv.index("--")
    COMPILER, ARCHIVES = sys.argv[1:split], sys.argv[split + 1 :]
    unittest.main(argv=sys.argv[:1], verbosity=2)
