"""Virtual machines that a Python program holds in its hand: libvmm through ctypes.

    import vmm

    with vmm.Vm(code=bytes.fromhex("66baf803b021eebb07000000faf4"), memory=2 << 20, irqchip="none") as vm:
        stop = vm.run(10)
        print(stop.reason, vm.console, vm.registers().rbx)

Every wait has a deadline, in seconds. What fails on the host's side raises vmm.Error; what the guest does is a Stop.
The library is the one that the loader finds, or the file that VMM_LIBRARY names.
"""
import ctypes

from ._library import GPR_NAMES, HYPERCALL, ControlRegisters, Error, Events, Lapic, call, library

__all__ = ["ControlRegisters", "Error", "Events", "Hypercall", "Lapic", "PageList", "Registers", "Snapshot", "Stop", "Vm", "version"]


def version():
    """The version of the library, "0.1.0"."""
    return library().vmm_version().decode()


def _nanoseconds(seconds):
    return max(0, min(int(seconds * 1e9), 2**63 - 1))


class Registers:
    """A CPU's general registers by name: rax to r15, rip, rflags. To be changed and given to Vm.set_registers()."""

    def __init__(self, raw):
        for name, value in zip(GPR_NAMES, raw.gpr):
            setattr(self, name, value)
        self.rip, self.rflags = raw.rip, raw.rflags

    def _raw(self):
        raw = library().Registers()
        for i, name in enumerate(GPR_NAMES):
            raw.gpr[i] = getattr(self, name)
        raw.rip, raw.rflags = self.rip, self.rflags
        return raw

    def __repr__(self):
        names = (*GPR_NAMES, "rip", "rflags")
        return "Registers(" + ", ".join(f"{name}={getattr(self, name):#x}" for name in names) + ")"


class Hypercall:
    """A guest's call of a port, for as long as the function that is called runs.

    cpu, port, value: who calls, and what was written to the port. Registers have RIP behind the instruction.
    """

    def __init__(self, handle):
        lib = library()
        self._handle = handle
        self.cpu, self.port = lib.vmm_call_cpu(handle), lib.vmm_call_port(handle)
        self.value = lib.vmm_call_value(handle)

    def registers(self):
        raw = library().Registers()
        library().vmm_call_get_registers(self._handle, ctypes.byref(raw))
        return Registers(raw)

    def set_registers(self, registers):
        library().vmm_call_set_registers(self._handle, ctypes.byref(registers._raw()))

    def read(self, address, size):
        """Guest memory by guest-physical address."""
        buffer = ctypes.create_string_buffer(size)
        call("vmm_call_read", self._handle, address, buffer, size)
        return buffer.raw

    def write(self, address, data):
        call("vmm_call_write", self._handle, address, bytes(data), len(data))

    def read_virtual(self, address, size):
        """Guest memory by the calling CPU's linear address."""
        buffer = ctypes.create_string_buffer(size)
        call("vmm_call_read_virtual", self._handle, address, buffer, size)
        return buffer.raw

    def write_virtual(self, address, data):
        call("vmm_call_write_virtual", self._handle, address, bytes(data), len(data))

    def stop(self, value=0):
        """Ends the run behind the call with "condition met" and this value; the guest may be run on."""
        library().vmm_call_stop(self._handle, value)


class _Calls:
    """The functions behind a machine's hypercalls, and what one of them has raised."""

    def __init__(self, functions):
        self.raised = None
        self.entries = {port: HYPERCALL(self._entry(function)) for port, function in functions.items()}

    def _entry(self, function):
        def enter(handle, _):
            made = Hypercall(handle)
            try:
                function(made)
            except BaseException as error:  # nothing may come out of here: check() raises it
                self.raised = error
                made.stop()
            finally:
                made._handle = None

        return enter

    def check(self):
        error, self.raised = self.raised, None
        if error is not None:
            raise error


class Stop:
    """Why a guest stopped running.

    reason: "power-off", "halted with interrupts off", "triple fault", "deadline", "condition met", ...
    met: what was waited for has come. value: of the debug-exit port. detail, report: text on the cause.
    console: of run_until(), what COM1 sent meanwhile.
    """

    def __init__(self, handle):
        lib = library()
        try:
            self.reason = lib.vmm_stop_reason(handle).decode()
            self.met = bool(lib.vmm_stop_is_met(handle))
            self.cpu = lib.vmm_stop_cpu(handle)
            self.value = lib.vmm_stop_value(handle)
            self.detail = lib.vmm_stop_detail(handle).decode(errors="replace")
            self.report = lib.vmm_stop_report(handle).decode(errors="replace")
            self.console = lib.vmm_stop_console(handle).decode(errors="replace")
        finally:
            lib.vmm_stop_free(handle)

    def __repr__(self):
        return f"Stop({self.reason!r}, met={self.met}, value={self.value:#x}, detail={self.detail!r})"


class Snapshot:
    """A machine at one moment: of Vm.snapshot(), or from a file."""

    def __init__(self, path):
        self._handle = call("vmm_open_snapshot", str(path).encode())

    @classmethod
    def _of(cls, handle):
        made = cls.__new__(cls)
        made._handle = handle
        return made

    def __del__(self):
        if getattr(self, "_handle", None):
            library().vmm_snapshot_free(self._handle)
            self._handle = None


class PageList:
    """Which pages of a snapshot's memory a machine has used, in order: of Vm.used_pages(), or from a file.

    pages: their numbers; pages are 4 KiB, and lie without gaps between the regions of memory.
    """

    def __init__(self, path):
        self._take(call("vmm_read_page_list", str(path).encode()))

    @classmethod
    def of(cls, snapshot, pages):
        """One that is made of numbers, in any order."""
        pages = list(pages)
        numbers = (ctypes.c_uint64 * len(pages))(*pages)
        return cls._of(call("vmm_new_page_list", snapshot._handle, numbers, len(pages)))

    @classmethod
    def _of(cls, handle):
        made = cls.__new__(cls)
        made._take(handle)
        return made

    def _take(self, handle):
        lib = library()
        self._handle = handle
        numbers, size = lib.vmm_page_list_pages(handle), lib.vmm_page_list_size(handle)
        self.pages = tuple(numbers[:size]) if size else ()

    def write(self, path):
        """To a file: PageList(path). Only of a snapshot in a file."""
        call("vmm_write_page_list", self._handle, str(path).encode())

    def __del__(self):
        if getattr(self, "_handle", None):
            library().vmm_page_list_free(self._handle)
            self._handle = None


class Vm:
    """A machine. Without anything that is to be booted it runs the guest that is built in.

    code: bytes that are put at `address` and entered there, in `mode` "real", "protected" or "long".
    kernel, initrd, cmdline: files. snapshot: goes on from there; all else is the snapshot's.
    faulted: its memory comes when it is touched, each page compared with its checksum; prefetch: a PageList of an
    earlier run, to be brought beforehand.
    clock_rate: seconds of guest time in one of the host's; 0: it stands still until advance_time().
    hypercalls: {port: function}, which the guest calls by writing to the port: function(Hypercall), on a thread of
    the machine's. What it raises ends the run, which raises it. Clones have the same functions.
    """

    def __init__(
        self,
        *,
        code=None,
        address=0x1000,
        mode="long",
        kernel=None,
        initrd=None,
        cmdline="",
        snapshot=None,
        faulted=False,
        prefetch=None,
        memory=None,
        cpus=None,
        irqchip=None,
        clock_rate=None,
        hypercalls=None,
    ):
        lib = library()
        self._handle = None
        self._calls = _Calls(hypercalls or {})
        config = lib.vmm_config_new()
        try:
            if snapshot is None and (faulted or prefetch is not None):
                raise TypeError("faulted and prefetch are for a machine that goes on from a snapshot")
            if prefetch is not None and not faulted:
                raise TypeError("prefetch is for memory that comes when it is touched: faulted=True")
            if faulted:
                pages = None if prefetch is None else prefetch._handle
                call("vmm_config_boot_snapshot_faulted", config, snapshot._handle, pages)
            elif snapshot is not None:
                lib.vmm_config_boot_snapshot(config, snapshot._handle)
            elif code is not None:
                call("vmm_config_boot_flat", config, bytes(code), len(code), address, mode.encode())
            elif kernel is not None:
                rd = None if initrd is None else str(initrd).encode()
                lib.vmm_config_boot_kernel(config, str(kernel).encode(), rd, cmdline.encode())
            else:
                lib.vmm_config_boot_builtin(config, cmdline.encode())
            if memory is not None:
                lib.vmm_config_set_memory(config, memory)
            if cpus is not None:
                lib.vmm_config_set_cpus(config, cpus)
            if irqchip is not None:
                call("vmm_config_set_irqchip", config, irqchip.encode())
            if clock_rate is not None:
                lib.vmm_config_set_clock_rate(config, clock_rate)
            for port, entry in self._calls.entries.items():
                call("vmm_config_add_hypercall", config, port, entry, None)
            self._handle = call("vmm_create", config)
        finally:
            lib.vmm_config_free(config)

    @classmethod
    def _of(cls, handle, calls):
        made = cls.__new__(cls)
        made._handle = handle
        made._calls = calls
        return made

    def close(self):
        """Ends the machine. Nobody may be using it."""
        if self._handle:
            library().vmm_destroy(self._handle)
            self._handle = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        if getattr(self, "_handle", None):
            self.close()

    def _vm(self):
        if not self._handle:
            raise ValueError("the machine is closed")
        return self._handle

    # ---- running

    def _ran(self, name, *arguments):
        stop = Stop(call(name, self._vm(), *arguments))
        self._calls.check()
        return stop

    def run(self, deadline):
        """Runs the guest until it stops."""
        return self._ran("vmm_run", _nanoseconds(deadline))

    def run_until(self, deadline, *, console=None, match=None, address=None, exits=None):
        """Runs the guest until COM1 has sent a text, a line matches an expression, a CPU comes to a linear address,
        or so many exits were handled: one of them."""
        wishes = {"console": console, "match": match, "address": address, "exits": exits}
        given = [(name, value) for name, value in wishes.items() if value is not None]
        if len(given) != 1:
            raise TypeError("run_until() waits for one of console, match, address and exits")
        (name, value), = given
        value = value.encode() if isinstance(value, str) else value
        return self._ran(f"vmm_run_until_{name}", value, _nanoseconds(deadline))

    def step(self, deadline, cpu=0):
        """Lets one CPU execute one instruction."""
        return self._ran("vmm_step", cpu, _nanoseconds(deadline))

    def cancel(self):
        """Makes a run in another thread end."""
        library().vmm_cancel(self._vm())

    def pause(self):
        call("vmm_pause", self._vm())

    def resume(self):
        call("vmm_resume", self._vm())

    def advance_time(self, seconds):
        """Guest time is later by that; with another clock_rate than 1. Any time, from any thread."""
        call("vmm_advance_time", self._vm(), _nanoseconds(seconds))

    # ---- console

    @property
    def console(self):
        """What COM1 has sent, as text."""
        size = ctypes.c_size_t()
        text = library().vmm_console(self._vm(), ctypes.byref(size))
        if not text:
            raise MemoryError
        try:
            return ctypes.string_at(text, size.value).decode(errors="replace")
        finally:
            library().vmm_free(text)

    def send(self, data):
        """Gives COM1 something to receive: how many bytes it took."""
        data = data.encode() if isinstance(data, str) else bytes(data)
        return library().vmm_send(self._vm(), data, len(data))

    # ---- state

    def registers(self, cpu=0):
        raw = library().Registers()
        call("vmm_get_registers", self._vm(), cpu, ctypes.byref(raw))
        return Registers(raw)

    def set_registers(self, registers, cpu=0):
        call("vmm_set_registers", self._vm(), cpu, ctypes.byref(registers._raw()))

    def control_registers(self, cpu=0):
        """cr0, cr2, cr3, cr4, cr8 and efer."""
        raw = ControlRegisters()
        call("vmm_get_control_registers", self._vm(), cpu, ctypes.byref(raw))
        return raw

    def msr(self, index, cpu=0):
        value = ctypes.c_uint64()
        call("vmm_get_msr", self._vm(), cpu, index, ctypes.byref(value))
        return value.value

    def set_msr(self, index, value, cpu=0):
        call("vmm_set_msr", self._vm(), cpu, index, value)

    def events(self, cpu=0):
        """Exceptions, interrupts and NMIs that are on their way to the CPU, and what blocks them."""
        events = Events()
        call("vmm_get_events", self._vm(), cpu, ctypes.byref(events))
        return events

    def set_events(self, events, cpu=0):
        call("vmm_set_events", self._vm(), cpu, ctypes.byref(events))

    def lapic(self, cpu=0):
        """The registers of the CPU's local APIC."""
        lapic = Lapic()
        call("vmm_get_lapic", self._vm(), cpu, ctypes.byref(lapic))
        return lapic

    def set_lapic(self, lapic, cpu=0):
        call("vmm_set_lapic", self._vm(), cpu, ctypes.byref(lapic))

    def read(self, address, size):
        """Guest memory by guest-physical address."""
        buffer = ctypes.create_string_buffer(size)
        call("vmm_read", self._vm(), address, buffer, size)
        return buffer.raw

    def write(self, address, data):
        call("vmm_write", self._vm(), address, bytes(data), len(data))

    def read_virtual(self, address, size, cpu=0):
        """Guest memory by a CPU's linear address."""
        buffer = ctypes.create_string_buffer(size)
        call("vmm_read_virtual", self._vm(), cpu, address, buffer, size)
        return buffer.raw

    def write_virtual(self, address, data, cpu=0):
        call("vmm_write_virtual", self._vm(), cpu, address, bytes(data), len(data))

    # ---- snapshots

    def snapshot(self):
        """The machine as it is now, in memory."""
        return Snapshot._of(call("vmm_take_snapshot", self._vm()))

    def reset_to(self, snapshot):
        """Makes this the machine of the snapshot again."""
        call("vmm_reset_to", self._vm(), snapshot._handle)

    def save(self, path):
        """The machine as it is now, to a file: Snapshot(path)."""
        call("vmm_save", self._vm(), str(path).encode())

    def save_increment(self, path, base):
        """The same, but only what is not as in the file `base`, which has to stay."""
        call("vmm_save_increment", self._vm(), str(path).encode(), str(base).encode())

    def used_pages(self):
        """Which pages of the snapshot's a machine with faulted=True has used so far: a PageList."""
        return PageList._of(call("vmm_used_pages", self._vm()))

    def clone(self):
        """An independent machine that goes on from here, with a console of its own."""
        return Vm._of(call("vmm_clone", self._vm()), self._calls)
