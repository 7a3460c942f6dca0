#!/usr/bin/env python3
"""Says which settings of a kernel configuration fragment did not stick.

    kernel-config-diff.py FRAGMENT FINAL_CONFIG

Kconfig drops a setting whose dependencies are not met without a word; this prints one line for each.
The exit status is 0 either way: it is for a person to judge.
"""
import re
import sys


def settings(path):
    found = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            if match := re.match(r"(CONFIG_\w+)=(.*)", line):
                found[match[1]] = match[2].strip()
            elif match := re.match(r"# (CONFIG_\w+) is not set", line):
                found[match[1]] = "n"
    return found


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    wanted, final = settings(sys.argv[1]), settings(sys.argv[2])
    for name, value in wanted.items():
        got = final.get(name, "n")
        if got != value:
            print(f"{name}={value} was asked for, the kernel has {name}={got}")


if __name__ == "__main__":
    main()
