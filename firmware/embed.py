#!/usr/bin/env python3
"""Turns a file into a C++ source that holds its bytes: embed.py IN OUT"""
import sys

data = open(sys.argv[1], "rb").read()
rows = [data[i:i + 32] for i in range(0, len(data), 32)]
with open(sys.argv[2], "w", encoding="ascii") as out:
    out.write('#include "firmware/builtin_guest.h"\n\n')
    out.write("namespace vmm::firmware {\nnamespace {\n\n")
    out.write("alignas(16) const unsigned char kImage[] = {\n")
    for row in rows:
        out.write("".join(f"{byte}," for byte in row) + "\n")
    out.write("};\n\n}  // namespace\n\n")
    out.write("std::span<const std::byte> builtin_guest() noexcept {\n")
    out.write("  return std::as_bytes(std::span(kImage));\n}\n\n")
    out.write("}  // namespace vmm::firmware\n")
