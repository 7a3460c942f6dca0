"""scripts/test-summary.py counts what really happened: a summary that loses a failure is worse than none."""
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

from source_tree import ROOT

_spec = importlib.util.spec_from_file_location("test_summary", ROOT / "scripts/test-summary.py")
summary = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(summary)

GTEST = """\
[==========] Running 4 tests from 1 test suite.
[ RUN      ] Bus.Reads
[       OK ] Bus.Reads (0 ms)
[ RUN      ] Bus.Writes
bus_test.cc:7: Failure
[  FAILED  ] Bus.Writes (3 ms)
[ RUN      ] Kvm/Vm.Runs/1
vm_test.cc:12: Skipped
Open /dev/kvm: No such file or directory

[  SKIPPED ] Kvm/Vm.Runs/1 (0 ms)
[ RUN      ] Kvm/Vm.Counts/2
[       OK ] Kvm/Vm.Counts/2, where GetParam() = 4 (1 ms)
[==========] 4 tests from 1 test suite ran. (4 ms total)
[  PASSED  ] 2 tests.
[  SKIPPED ] 1 test, listed below:
[  SKIPPED ] Kvm/Vm.Runs/1
[  FAILED  ] 1 test, listed below:
[  FAILED  ] Bus.Writes
"""

UNITTEST = """\
test_one (__main__.A.test_one) ... ok
test_two (__main__.A.test_two)
What it is about. ... ok
test_three (__main__.A.test_three) ... skipped "no guest kernel: it's missing"
test_four (__main__.A.test_four) ... what the guest printed
more of it
ok
test_five (__main__.A.test_five) ... FAIL
test_six (__main__.A.test_six) ... ERROR
setUpClass (__main__.B) ... skipped '/dev/kvm cannot be used: gone'
setUpClass (__main__.C) ... ERROR

----------------------------------------------------------------------
Ran 6 tests in 0.1s

FAILED (failures=1, errors=1, skipped=2)
"""


class Summary(unittest.TestCase):
    def tally(self, records, kvm_usable=False):
        tally = summary.Tally(kvm_usable)
        with tempfile.TemporaryDirectory() as folder:
            log = pathlib.Path(folder) / "run.json"
            log.write_text("\n".join(json.dumps(record) for record in records), encoding="utf-8")
            tally.add_log(str(log))
        return tally

    def counts(self, *records, **options):
        tally = self.tally(records, **options)
        return tally.passed, len(tally.failed), len(tally.skipped)

    def record(self, result="OK", **fields):
        return {"name": "program", "result": result, "returncode": 0, **fields}

    def test_cases_of_googletest(self):
        self.assertEqual(self.counts(self.record("FAIL", stdout=GTEST)), (2, 1, 1))

    def test_cases_of_unittest(self):
        self.assertEqual(self.counts(self.record("FAIL", stderr=UNITTEST)), (3, 3, 2))

    def test_program_without_cases_is_one(self):
        self.assertEqual(self.counts(self.record(stdout="fine")), (1, 0, 0))
        self.assertEqual(self.counts(self.record("FAIL", stdout="not fine")), (0, 1, 0))
        self.assertEqual(self.counts(self.record("TIMEOUT")), (0, 1, 0))
        self.assertEqual(self.counts(self.record("SKIP", stderr="needs something")), (0, 0, 1))

    def test_crash_after_good_cases_is_a_failure(self):
        good = GTEST.replace("[  FAILED  ] Bus.Writes (3 ms)", "[       OK ] Bus.Writes (3 ms)")
        self.assertEqual(self.counts(self.record("FAIL", stdout=good)), (3, 1, 1))

    def test_skip_for_want_of_a_kvm_that_is_there_is_a_failure(self):
        self.assertEqual(self.counts(self.record(stdout=GTEST), kvm_usable=True), (2, 2, 0))
        skipped = self.record("SKIP", stderr="example: Open /dev/kvm: Permission denied")
        self.assertEqual(self.counts(skipped, kvm_usable=True), (0, 1, 0))

    def test_missing_or_empty_log_is_a_failure(self):
        tally = summary.Tally(False)
        tally.add_log("/nonexistent/run.json")
        self.assertEqual(len(tally.failed), 1)
        self.assertEqual(self.counts(), (0, 1, 0))

    def test_reasons_are_told(self):
        skipped = self.tally([self.record("FAIL", stdout=GTEST)]).skipped
        self.assertIn("Open /dev/kvm: No such file or directory", skipped[0])

    def test_steps_and_logs_may_alternate(self):
        with tempfile.TemporaryDirectory() as folder:
            logs = [pathlib.Path(folder) / name for name in ("one.json", "two.json")]
            for log in logs:
                log.write_text(json.dumps(self.record()), encoding="utf-8")
            run = subprocess.run(
                [sys.executable, ROOT / "scripts/test-summary.py"]
                + ["--passed", "build", logs[0], "--passed", "kernel", logs[1]],
                capture_output=True, text=True, timeout=60, check=False,
            )
        self.assertEqual((run.returncode, run.stdout.split("\n")[-2]), (0, "4 passed, 0 failed, 0 skipped"), run.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
