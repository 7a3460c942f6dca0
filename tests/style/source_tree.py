"""The project's source files, and their text without comments and literals."""
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]

_LEXEME = re.compile(
    r"""
    (?P<raw>R"(?P<delim>[^()\\\s]{0,16})\(.*?\)(?P=delim)")   # raw string
  | (?P<string>"(?:[^"\\\n]|\\.)*")
  | (?P<char>(?<![0-9A-Fa-f])'(?:[^'\\\n]|\\.)+')            # not the ' inside 1'000
  | (?P<line>//(?:[^\n\\]|\\.)*)
  | (?P<block>/\*.*?\*/)
    """,
    re.VERBOSE | re.DOTALL,
)


def _blank(match):
    """Keeps line breaks, so that line numbers stay right, and the quotes, so that tokens do not join."""
    text = match.group(0)
    if match.lastgroup in ("line", "block"):
        return " " + "\n" * text.count("\n")
    return text[0] + "\n" * text.count("\n") + text[-1]


def strip(text):
    """The code alone: comments gone, literals emptied. Include lines keep their file name."""
    kept = []

    def hide(match):
        kept.append(match.group(0))
        return f"#include @{len(kept) - 1}@"

    text = re.sub(r'^[ \t]*#[ \t]*include[ \t]*(?:"[^"\n]*"|<[^>\n]*>)', hide, text, flags=re.MULTILINE)
    text = _LEXEME.sub(_blank, text)
    return re.sub(r"#include @(\d+)@", lambda m: kept[int(m.group(1))], text)


def includes(text):
    """(line number, name, True for <name>) of each #include outside comments."""
    pattern = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?:"([^"\n]*)"|<([^>\n]*)>)', re.MULTILINE)
    code = strip(text)
    for match in pattern.finditer(code):
        line = code.count("\n", 0, match.start()) + 1
        yield line, match.group(1) or match.group(2), match.group(1) is None


def files(*folders, suffixes=(".h", ".cc")):
    """{path relative to the root, as a string: text} of the files below these folders."""
    found = {}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in suffixes and path.is_file():
                found[path.relative_to(ROOT).as_posix()] = path.read_text(encoding="utf-8")
    return found
