"""The rules of rules.py, kept by the sources; and for each rule a text that breaks it."""
import unittest

import rules
from source_tree import files, strip

LIBRARY = ("src/base", "src/memory", "src/devices", "src/vmm")
CODE = ("src", "tests", "examples", "bench")


class Sources(unittest.TestCase):
    """The project keeps its rules."""

    def expect_clean(self, findings):
        self.assertFalse(findings, "\n" + "\n".join(findings))

    def test_layers(self):
        self.expect_clean(rules.layers(files("src")))

    def test_kvm_header(self):
        self.expect_clean(rules.kvm_header(files("src", "tests", "examples", "bench")))

    def test_pragma_once(self):
        self.expect_clean(rules.pragma_once(files(*CODE)))

    def test_guest_log(self):
        self.expect_clean(rules.guest_log(files("src/devices")))

    def test_library_manners(self):
        self.expect_clean(rules.library_manners(files(*LIBRARY)))

    def test_portable_headers(self):
        self.expect_clean(rules.portable_headers(files("src")))

    def test_finished(self):
        self.expect_clean(rules.finished(files(*CODE, "firmware", suffixes=(".h", ".cc", ".c", ".S"))))

    def test_the_scan_sees_the_sources(self):
        seen = files("src")
        self.assertIn("src/base/result.h", seen)
        self.assertIn("src/vmm/kvm/vcpu_fd.cc", seen)


class RulesCanFail(unittest.TestCase):
    """Each rule finds what it is there to find, and nothing in the text beside it."""

    def expect_findings(self, rule, bad, good):
        for path, text in bad:
            self.assertTrue(rule({path: text}), f"{rule.__name__} missed {path}: {text!r}")
        for path, text in good:
            self.assertFalse(rule({path: text}), f"{rule.__name__} is wrong about {path}: {text!r}")

    def test_layers(self):
        self.expect_findings(
            rules.layers,
            bad=[
                ("src/base/x.h", '#include "memory/address.h"\n'),
                ("src/memory/x.cc", '#include "devices/device.h"\n'),
                ("src/devices/x.cc", '  #  include "vmm/vm.h"\n'),
                ("src/vmm/x.cc", '#include "cli/options.h"\n'),
                ("src/vmm/x.cc", '#include "../base/error.h"\n'),
                ("src/vmm/x.cc", '#include "vcpu.h"\n'),
                ("src/devices/x.cc", '#include "firmware/builtin_guest.h"\n'),
                ("src/cli/x.cc", '#include "vmm/vcpu.h"\n'),
                ("src/cli/x.cc", '#include "vmm_testing/matchers.h"\n'),
                ("src/vmm_testing/x.h", '#include "cli/options.h"\n'),
                ("src/cli/x.cc", '#include "vmm/kvm/vcpu_fd.h"\n'),
            ],
            good=[
                ("src/base/x.h", '// #include "memory/address.h"\n/*\n#include "vmm/vm.h"\n*/\n'),
                ("src/memory/x.h", '#include "base/error.h"\n#include <vector>\n'),
                ("src/vmm/x.cc", '#include "firmware/builtin_guest.h"\n'),
                ("src/cli/x.cc", '#include "vmm/vm.h"\n#include "base/size.h"\n'),
            ],
        )

    def test_kvm_header(self):
        self.expect_findings(
            rules.kvm_header,
            bad=[
                ("src/vmm/machine.cc", "#include <linux/kvm.h>\n"),
                ("tests/kvm/x_test.cc", "# include  <linux/kvm.h>\n"),
            ],
            good=[
                ("src/vmm/kvm/system.cc", "#include <linux/kvm.h>\n"),
                ("src/vmm/machine.cc", "// <linux/kvm.h> stays out\n#include <linux/types.h>\n"),
            ],
        )

    def test_pragma_once(self):
        self.expect_findings(
            rules.pragma_once,
            bad=[
                ("src/base/x.h", "// A thing.\n#include <vector>\n"),
                ("src/base/x.h", "#include <vector>\n#pragma once\n"),
                ("src/base/x.h", "// #pragma once\n"),
            ],
            good=[
                ("src/base/x.h", "// A thing.\n\n#pragma once\n"),
                ("src/base/x.cc", "int x();\n"),
                ("src/precompiled.h", "#ifndef X\n"),
            ],
        )

    def test_guest_log(self):
        self.expect_findings(
            rules.guest_log,
            bad=[
                ("src/devices/x.cc", 'log_(LogLevel::kWarning, "uart", "{} is odd", 1);'),
                ("src/devices/x.cc", 'ports_.log( vmm::LogLevel::kInfo, "uart", "odd");'),
            ],
            good=[
                ("src/devices/x.cc", 'VMM_LOG_GUEST(log_, limit_, "uart", "{} is odd", 1);'),
                ("src/devices/x.cc", '// log_(LogLevel::kWarning, "uart", "no")\n'),
            ],
        )

    def test_library_manners(self):
        self.expect_findings(
            rules.library_manners,
            bad=[
                ("src/vmm/x.cc", "std::exit(1);"),
                ("src/vmm/x.cc", "if (bad) abort();"),
                ("src/vmm/x.cc", "::_exit (2);"),
                ("src/vmm/x.cc", 'printf("%d", 1);'),
                ("src/vmm/x.cc", 'std::cout << "hello";'),
                ("src/vmm/x.cc", "using namespace std; cerr << 1;"),
                ("src/vmm/x.cc", 'fmt::print("hello");'),
                ("src/vmm/x.cc", 'std::fprintf(stderr, "x");'),
                ("src/vmm/x.cc", "std::terminate();"),
                ("src/vmm/x.cc", 'std::system("true"); '),
                ("src/vmm/x.cc", "::signal(SIGINT, handler);"),
                ("src/vmm/x.cc", 'auto* home = std::getenv("HOME");'),
            ],
            good=[
                ("src/vmm/x.cc", 'auto exit = fd_.run(); // exit(1)\nfail("abort()");'),
                ("src/vmm/x.cc", "wake_.signal(); vcpu->exit(); VcpuExit(1); on_exit(2);"),
                ("src/vmm/x.cc", "std::snprintf(buffer, 3, x);"),
            ],
        )

    def test_portable_headers(self):
        self.expect_findings(
            rules.portable_headers,
            bad=[("src/base/x.h", "#include <expected>\n"), ("src/base/x.h", "#include <format>\n")],
            good=[("src/base/x.h", "#include <tl/expected.hpp>\n#include <fmt/format.h>\n")],
        )

    def test_finished(self):
        self.expect_findings(
            rules.finished,
            bad=[("src/x.cc", "// TODO: more\n"), ("src/x.cc", "int x;  // FIXME\n")],
            good=[("src/x.cc", "// what a guest has to do\n")],
        )


class Strip(unittest.TestCase):
    """Comments and literals go, everything else and the line numbers stay."""

    def test_strip(self):
        text = 'int a = 1\'000;  // "x\nf("/* no */", \'"\', R"(a "b" // c)"); /* one\ntwo */ g();\n'
        self.assertEqual(strip(text), "int a = 1'000;   \nf(\"\", '', R\");  \n g();\n")


if __name__ == "__main__":
    unittest.main(verbosity=2)
