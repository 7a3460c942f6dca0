"""The rules that source files keep. Each takes {path: text} and returns its findings as sentences."""
import re

from source_tree import includes, strip

# A layer sees itself and what stands before it; but vmm_testing stands beside cli, on vmm.
LAYERS = ("base", "memory", "devices", "vmm", "vmm_testing", "cli")

# What the command line may use of src/vmm: the library's public face.
CLI_MAY_INCLUDE = {
    "vmm/block/open_disk.h",
    "vmm/config.h",
    "vmm/control/line_client.h",
    "vmm/control/line_server.h",
    "vmm/debug/server.h",
    "vmm/loader/describe.h",
    "vmm/net/network.h",
    "vmm/open_pmem.h",
    "vmm/snapshot/snapshot.h",
    "vmm/snapshot/symbol_difference.h",
    "vmm/stop_reason.h",
    "vmm/vcpu_exit.h",
    "vmm/vm.h",
    "vmm/vhost/open_vhost.h",
    "vmm/vsock/open_vsock.h",
}
# Folders of src/vmm that are public as a whole.
CLI_MAY_INCLUDE_FOLDERS = (
    "vmm/console/",
    "vmm/doctor/",
)


def _layer(path):
    parts = path.split("/")
    return parts[1] if parts[0] == "src" and parts[1] in LAYERS else None


def layers(sources):
    """base <- memory <- devices <- vmm <- cli, and the command line keeps to the public headers."""
    found = []
    for path, text in sources.items():
        layer = _layer(path)
        for line, name, angled in includes(text):
            if angled:
                continue
            target = name.split("/")[0]
            if target == "firmware" and layer == "vmm":
                continue  # the guest that is built in: bytes, and nothing that could look back
            if name.startswith(".") or target not in LAYERS:
                found.append(f'{path}:{line}: "{name}" is not written from src/')
            elif layer and LAYERS.index(target) > LAYERS.index(layer):
                found.append(f'{path}:{line}: {layer} includes "{name}" of the later layer {target}')
            elif layer == "cli" and target == "vmm_testing":
                found.append(f'{path}:{line}: "{name}" is for tests, not for the command')
            elif layer == "cli" and target == "vmm" and not _public(name):
                found.append(f'{path}:{line}: "{name}" is not a public header of the library')
    return found


def _public(name):
    return name in CLI_MAY_INCLUDE or name.startswith(CLI_MAY_INCLUDE_FOLDERS)


def kvm_header(sources):
    """<linux/kvm.h> is included under src/vmm/kvm/ only."""
    return [
        f"{path}:{line}: <{name}> belongs under src/vmm/kvm/"
        for path, text in sources.items()
        if not path.startswith("src/vmm/kvm/")
        for line, name, _ in includes(text)
        if name in ("linux/kvm.h", "asm/kvm.h", "linux/kvm_para.h", "asm/kvm_para.h")
    ]


def pragma_once(sources):
    """A header's first line of code is #pragma once."""
    found = []
    for path, text in sources.items():
        # The compiler reads a precompiled header as if it were a source file, and warns.
        if path.endswith(".h") and not path.endswith("/precompiled.h"):
            lines = [line.strip() for line in strip(text).splitlines() if line.strip()]
            if not lines or lines[0] != "#pragma once":
                found.append(f"{path}: does not begin with #pragma once")
    return found


def guest_log(sources):
    """Devices run on the guest's behalf: they log through VMM_LOG_GUEST, which is rate-limited."""
    found = []
    for path, text in sources.items():
        for number, line in enumerate(strip(text).splitlines(), 1):
            if re.search(r"\w\s*\(\s*(::)?(vmm::)?LogLevel::", line):
                found.append(f"{path}:{number}: a plain log call: a guest could repeat it without end")
    return found


_PROCESS_CALLS = re.compile(
    r"""(?<![\w.>])(?:(?:std)?::)?
        (exit|_exit|_Exit|quick_exit|abort|terminate|printf|fprintf|vprintf|puts|fputs|putchar
        |perror|getenv|setenv)\s*\(
      | (?<!\w)(?:std)?::(signal|system)\s*\(      # names that others may well have, when unqualified
      | (?<!\w)(?:std::)?(cout|cerr|clog|cin)\s*(?:<<|>>)
      | fmt::print\s*\(""",
    re.VERBOSE,
)


# What runs in a process that the library has forked, until that is another program.
_NEW_PROCESSES = {"src/vmm/vhost/child_process.cc"}


def library_manners(sources):
    """A library does not end its process, write to its standard streams or read its environment."""
    found = []
    for path, text in sources.items():
        if path in _NEW_PROCESSES:
            continue
        for number, line in enumerate(strip(text).splitlines(), 1):
            if match := _PROCESS_CALLS.search(line):
                what = match.group(0).strip().rstrip("(")
                found.append(f"{path}:{number}: {what.strip()} is the program's business")
    return found


def portable_headers(sources):
    """What clang 14 with libstdc++ 12 cannot compile stays out."""
    banned = {"expected", "format", "source_location", "print", "generator", "stacktrace"}
    return [
        f"{path}:{line}: <{name}> does not compile with clang 14"
        for path, text in sources.items()
        for line, name, angled in includes(text)
        if angled and name in banned
    ]


def finished(sources):
    """A marker for work left undone is not landed."""
    found = []
    for path, text in sources.items():
        for number, line in enumerate(text.splitlines(), 1):
            if match := re.search(r"\b(TODO|FIXME|XXX|HACK)\b", line):
                found.append(f"{path}:{number}: {match.group(1)}")
    return found
