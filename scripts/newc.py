#!/usr/bin/env python3
"""Writes a cpio archive ("newc", what Linux takes as an initramfs) from a list, without needing root.

    newc.py OUTPUT < LIST

Lines of the list:
    dir   NAME MODE
    file  NAME SOURCE MODE
    slink NAME TARGET
    nod   NAME MODE b|c MAJOR MINOR

The same list and files give the same bytes: owners are root, times are zero, inode numbers count up.
Format: Linux Documentation/driver-api/early-userspace/buffer-format.rst.
"""
import stat
import sys


class Archive:
    def __init__(self, out):
        self.out = out
        self.inode = 0

    def add(self, name, mode, data=b"", device=(0, 0)):
        self.inode += 1
        links = 2 if stat.S_ISDIR(mode) else 1
        encoded = name.lstrip("/").encode() + b"\0"
        fields = (self.inode, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(encoded), 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields)
        self.out.write(pad(header + encoded) + pad(data))

    def finish(self):
        self.inode = -1
        encoded = b"TRAILER!!!\0"
        fields = (0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, len(encoded), 0)
        self.out.write(pad(b"070701" + b"".join(b"%08x" % field for field in fields) + encoded))


def pad(data):
    return data + b"\0" * (-len(data) % 4)


def add_line(archive, words):
    match words:
        case ["dir", name, mode]:
            archive.add(name, stat.S_IFDIR | int(mode, 8))
        case ["file", name, source, mode]:
            with open(source, "rb") as content:
                archive.add(name, stat.S_IFREG | int(mode, 8), content.read())
        case ["slink", name, target]:
            archive.add(name, stat.S_IFLNK | 0o777, target.encode())
        case ["nod", name, mode, "b" | "c" as kind, major, minor]:
            kind = stat.S_IFBLK if kind == "b" else stat.S_IFCHR
            archive.add(name, kind | int(mode, 8), device=(int(major), int(minor)))
        case _:
            raise ValueError(f"unknown line: {' '.join(words)}")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with open(sys.argv[1], "wb") as out:
        archive = Archive(out)
        for line in sys.stdin:
            if line.strip() and not line.startswith("#"):
                add_line(archive, line.split())
        archive.finish()


if __name__ == "__main__":
    main()
