#!/usr/bin/env python3
"""Adds up the test logs of several Meson runs and says how it went.

    test-summary.py [--passed STEP]... [--failed STEP]... TESTLOG.json...

Counts single test cases where a program reports them (GoogleTest, unittest), whole programs otherwise. A
step is something else that passed or failed, such as a build. A log that does not exist is a failure. Each
failed and each skipped case is listed, a skipped one with its reason. Where /dev/kvm can be opened, a case that was
skipped for want of it counts as failed. The last line is "N passed, N failed, N skipped"; the exit status is 1
when anything failed.
"""
import argparse
import json
import os
import re
import sys


class Tally:
    def __init__(self, kvm_usable):
        self.kvm_usable = kvm_usable
        self.passed = 0
        self.failed = []
        self.skipped = []

    def skip(self, name, reason):
        reason = " ".join(reason.split()) or "no reason given"
        if self.kvm_usable and "/dev/kvm" in reason:
            self.failed.append(f"{name}: skipped although /dev/kvm is usable here: {reason}")
        else:
            self.skipped.append(f"{name}: {reason}")

    def add_log(self, path):
        run = os.path.splitext(os.path.basename(path))[0]
        try:
            with open(path, encoding="utf-8") as lines:
                records = [json.loads(line) for line in lines if line.strip()]
        except (OSError, ValueError) as error:
            self.failed.append(f"{run}: {error}")
            return
        if not records:
            self.failed.append(f"{run}: no test ran")
        for record in records:
            self.add_program(f"{run}: {record['name']}", record)

    def add_program(self, name, record):
        output = record.get("stdout", "") + "\n" + record.get("stderr", "")
        before = len(self.failed)
        cases = gtest_cases(output) or unittest_cases(output)
        for case, outcome, reason in cases:
            if outcome == "passed":
                self.passed += 1
            elif outcome == "skipped":
                self.skip(f"{name}: {case}", reason)
            else:
                self.failed.append(f"{name}: {case}")
        if record["result"] in ("SKIP",) and not cases:
            self.skip(name, output.strip())
        elif record["result"] not in ("OK", "EXPECTEDFAIL", "SKIP"):
            # A program may also fail outside its cases: by a crash, a leak or its time limit.
            if len(self.failed) == before:
                self.failed.append(f"{name}: {record['result']} (exit status {record.get('returncode')})")
        elif not cases and record["result"] != "SKIP":
            self.passed += 1


def gtest_cases(output):
    """(name, outcome, reason) of each case in the output of a GoogleTest program."""
    cases, text = [], []
    for line in output.splitlines():
        match = re.match(r"\[ +(RUN|OK|FAILED|SKIPPED) +\] ([\w/.<>, :-]+?)(?: \(\d+ ms\)|, where .*)?$", line)
        if not match:
            text.append(line)
            continue
        what, name = match.groups()
        if what == "RUN":
            text = []
        elif what == "OK":
            cases.append((name, "passed", ""))
        elif line.endswith("ms)"):  # without a time it is the list at the end
            # The message stands under a line "file:line: Skipped".
            reason = " ".join(part for part in text if not re.search(r": Skipped$", part))
            cases.append((name, "skipped" if what == "SKIPPED" else "failed", reason))
    return cases


def unittest_cases(output):
    """The same for Python's unittest with verbosity 2."""
    cases = []
    # What a test prints may stand between its name and its outcome.
    for match in re.finditer(
        r"^(?P<name>test\w*|setUp(?:Class|Module)) \((?P<where>[\w.]+)\)(?P<doc>\n[^\n]*)?? \.\.\. (?P<rest>.*?)"
        r"(?P<outcome>\bok|\bFAIL|\bERROR|\bskipped (?P<quote>['\"])(?P<reason>.*?)(?P=quote))$",
        output,
        re.MULTILINE | re.DOTALL,
    ):
        outcome = match["outcome"].split()[0].lower()
        word = {"ok": "passed", "skipped": "skipped"}.get(outcome, "failed")
        cases.append((f"{match['where']}", word, match["reason"] or ""))
    if not cases and (match := re.search(r"^skipped=(\d+)", output, re.MULTILINE)):
        cases = [("all", "skipped", "")] * int(match[1])
    return cases


def kvm_is_usable():
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--passed", action="append", default=[])
    parser.add_argument("--failed", action="append", default=[])
    parser.add_argument("logs", nargs="*")
    options = parser.parse_intermixed_args()  # options and logs in any order
    tally = Tally(kvm_is_usable())
    tally.passed += len(options.passed)
    tally.failed += options.failed
    for log in options.logs:
        tally.add_log(log)
    for title, entries in (("Skipped", tally.skipped), ("Failed", tally.failed)):
        if entries:
            print(f"\n{title}:")
            for entry in entries:
                print(f"  {entry}")
    print(f"\n{tally.passed} passed, {len(tally.failed)} failed, {len(tally.skipped)} skipped")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
