#!/usr/bin/env python3
"""Makes a bzImage whose kernel says on COM1 that it was entered, and nothing else.

    entry_probe.py --decompress BUILD/bench/decompress_floor --stub BUILD/bench/first_byte.bin \\
                   --format lz4 BZIMAGE OUT

The payload of a real bzImage is unpacked, the first bytes at its entry point are replaced by the stub, and
it is packed again: the size and the contents are a real kernel's, but the moment at which it is entered can
be seen from outside. Formats: lz4, gzip, bzip2, lzma, xz, zstd (lz4 and zstd need the programs of that name).
"""
import argparse
import bz2
import gzip
import lzma
import pathlib
import struct
import subprocess
import tempfile

FORMATS = ("lz4", "gzip", "bzip2", "lzma", "xz", "zstd")

# Linux x86 boot protocol, "The Real-Mode Kernel Header".
SETUP_SECTS, SYSSIZE, PAYLOAD_OFFSET, PAYLOAD_LENGTH = 0x1F1, 0x1F4, 0x248, 0x24C


def pack(data, fmt):
    """The payload as the kernel's build packs it, its unpacked size behind it where gzip has none."""
    if fmt == "gzip":
        return gzip.compress(data, 9)
    if fmt == "bzip2":
        packed = bz2.compress(data, 9)
    elif fmt == "lzma":
        packed = lzma.compress(data, format=lzma.FORMAT_ALONE, preset=9)
    elif fmt == "xz":
        filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "dict_size": 32 << 20}]
        packed = lzma.compress(data, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, filters=filters)
    else:
        program = {"lz4": ["lz4", "-l", "-9", "-c"], "zstd": ["zstd", "-19", "-q", "-c"]}[fmt]
        packed = subprocess.run(program, input=data, check=True, capture_output=True).stdout
    return packed + struct.pack("<I", len(data))


def patch_entry(elf, stub):
    """Puts the stub where the kernel is entered (ELF64: e_entry, program headers)."""
    entry, phoff = struct.unpack_from("<QQ", elf, 24)
    phentsize, phnum = struct.unpack_from("<HH", elf, 54)
    for i in range(phnum):
        at = phoff + i * phentsize
        kind = struct.unpack_from("<I", elf, at)[0]
        offset, _, paddr, filesz = struct.unpack_from("<QQQQ", elf, at + 8)
        if kind == 1 and paddr <= entry and entry + len(stub) <= paddr + filesz:
            where = offset + entry - paddr
            return elf[:where] + stub + elf[where + len(stub):]
    raise SystemExit("the payload's entry point is in none of its segments")


def unpack(image, decompress):
    """The payload of a bzImage, through the floor program."""
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run([decompress, "--quiet", "--output", out.name, image], check=True,
                       stdout=subprocess.DEVNULL)
        return pathlib.Path(out.name).read_bytes()


def make_probe(image, out, fmt, decompress, stub):
    """Writes the probe made from the bzImage `image` to `out`."""
    original = pathlib.Path(image).read_bytes()
    elf = patch_entry(unpack(image, decompress), pathlib.Path(stub).read_bytes())
    setup = ((original[SETUP_SECTS] or 4) + 1) * 512
    offset, length = struct.unpack_from("<II", original, PAYLOAD_OFFSET)
    payload = pack(elf, fmt)
    tail = original[setup + offset + length:]
    probe = bytearray(original[:setup + offset] + payload + tail)
    probe += bytes(-len(probe) % 16)
    struct.pack_into("<I", probe, PAYLOAD_LENGTH, len(payload))
    struct.pack_into("<I", probe, SYSSIZE, (len(probe) - setup) // 16)
    pathlib.Path(out).write_bytes(probe)


def main():
    parser = argparse.ArgumentParser(description="make a bzImage that says that it was entered")
    parser.add_argument("--format", choices=FORMATS, default="lz4")
    parser.add_argument("--decompress", required=True, help="the program decompress_floor")
    parser.add_argument("--stub", required=True, help="first_byte.bin")
    parser.add_argument("image")
    parser.add_argument("out")
    args = parser.parse_args()
    make_probe(args.image, args.out, args.format, args.decompress, args.stub)


if __name__ == "__main__":
    main()
