"""The C functions of libvmm (vmm/c_api.h), found and declared when the first is called."""
import ctypes
import ctypes.util
import functools
import os

_SONAME = "libvmm.so.0.1"
GPR_NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))


class Error(Exception):
    """What went wrong on the host's side; `code` is its name: "NoKvm", "BadConfig", "Unsupported", ..."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class _Registers(ctypes.Structure):
    _fields_ = [("gpr", ctypes.c_uint64 * 16), ("rip", ctypes.c_uint64), ("rflags", ctypes.c_uint64)]


class ControlRegisters(ctypes.Structure):
    """A CPU's control registers and EFER."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("cr0", "cr2", "cr3", "cr4", "cr8", "efer")]


class Events(ctypes.Structure):
    """What is on its way to a CPU, and what keeps events away from it (vmm/c_api.h)."""

    _fields_ = [
        *((name, ctypes.c_uint8) for name in (
            "exception_injected", "exception_pending", "exception_has_error", "exception")),
        ("exception_error", ctypes.c_uint32),
        *((name, ctypes.c_uint8) for name in (
            "interrupt_injected", "interrupt_soft", "interrupt", "interrupt_shadow", "nmi_injected", "nmi_masked",
            "nmi_pending", "smm", "smi_pending", "smm_inside_nmi", "latched_init")),
        ("sipi_vector", ctypes.c_uint32),
    ]


class Lapic(ctypes.Structure):
    """A CPU's local APIC (vmm/c_api.h): isr, tmr and irr have a bit for each vector."""

    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("id", "version", "tpr", "ppr", "ldr", "dfr", "svr", "esr")),
        *((name, ctypes.c_uint32 * 8) for name in ("isr", "tmr", "irr")),
        ("icr", ctypes.c_uint64),
        *((name, ctypes.c_uint32) for name in (
            "lvt_timer", "lvt_thermal", "lvt_performance", "lvt_lint0", "lvt_lint1", "lvt_error",
            "initial_count", "current_count", "divide", "reserved")),
        ("tsc_deadline", ctypes.c_uint64),
    ]


# void function(vmm_call*, void* context)
HYPERCALL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)

_P, _S, _INT = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
_U16, _U32, _U64, _SIZE = ctypes.c_uint16, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_size_t

# Functions that fail have a last parameter more, for the error.
_FALLIBLE = {
    "vmm_config_set_irqchip": (_INT, _P, _S),
    "vmm_config_boot_flat": (_INT, _P, _S, _SIZE, _U64, _S),
    "vmm_config_add_hypercall": (_INT, _P, _U16, HYPERCALL, _P),
    "vmm_call_read": (_INT, _P, _U64, _P, _SIZE),
    "vmm_call_write": (_INT, _P, _U64, _S, _SIZE),
    "vmm_call_read_virtual": (_INT, _P, _U64, _P, _SIZE),
    "vmm_call_write_virtual": (_INT, _P, _U64, _S, _SIZE),
    "vmm_create": (_P, _P),
    "vmm_run": (_P, _P, _U64),
    "vmm_run_until_console": (_P, _P, _S, _U64),
    "vmm_run_until_match": (_P, _P, _S, _U64),
    "vmm_run_until_address": (_P, _P, _U64, _U64),
    "vmm_run_until_exits": (_P, _P, _U64, _U64),
    "vmm_step": (_P, _P, _U32, _U64),
    "vmm_pause": (_INT, _P),
    "vmm_resume": (_INT, _P),
    "vmm_get_registers": (_INT, _P, _U32, _P),
    "vmm_set_registers": (_INT, _P, _U32, _P),
    "vmm_get_control_registers": (_INT, _P, _U32, _P),
    "vmm_get_msr": (_INT, _P, _U32, _U32, _P),
    "vmm_set_msr": (_INT, _P, _U32, _U32, _U64),
    "vmm_get_events": (_INT, _P, _U32, _P),
    "vmm_set_events": (_INT, _P, _U32, _P),
    "vmm_get_lapic": (_INT, _P, _U32, _P),
    "vmm_set_lapic": (_INT, _P, _U32, _P),
    "vmm_read": (_INT, _P, _U64, _P, _SIZE),
    "vmm_write": (_INT, _P, _U64, _S, _SIZE),
    "vmm_read_virtual": (_INT, _P, _U32, _U64, _P, _SIZE),
    "vmm_write_virtual": (_INT, _P, _U32, _U64, _S, _SIZE),
    "vmm_take_snapshot": (_P, _P),
    "vmm_reset_to": (_INT, _P, _P),
    "vmm_advance_time": (_INT, _P, _U64),
    "vmm_save": (_INT, _P, _S),
    "vmm_save_increment": (_INT, _P, _S, _S),
    "vmm_open_snapshot": (_P, _S),
    "vmm_config_boot_snapshot_faulted": (_INT, _P, _P, _P),
    "vmm_used_pages": (_P, _P),
    "vmm_new_page_list": (_P, _P, ctypes.POINTER(_U64), _SIZE),
    "vmm_read_page_list": (_P, _S),
    "vmm_write_page_list": (_INT, _P, _S),
    "vmm_clone": (_P, _P),
}
_OTHERS = {
    "vmm_version": (_S,),
    "vmm_error_code": (_S, _P),
    "vmm_error_message": (_S, _P),
    "vmm_error_free": (None, _P),
    "vmm_config_new": (_P,),
    "vmm_config_free": (None, _P),
    "vmm_config_set_memory": (None, _P, _U64),
    "vmm_config_set_cpus": (None, _P, _U32),
    "vmm_config_set_clock_rate": (None, _P, ctypes.c_double),
    "vmm_config_boot_builtin": (None, _P, _S),
    "vmm_config_boot_kernel": (None, _P, _S, _S, _S),
    "vmm_config_boot_snapshot": (None, _P, _P),
    "vmm_call_cpu": (_U32, _P),
    "vmm_call_port": (_U16, _P),
    "vmm_call_value": (_U64, _P),
    "vmm_call_get_registers": (None, _P, _P),
    "vmm_call_set_registers": (None, _P, _P),
    "vmm_call_stop": (None, _P, _U32),
    "vmm_destroy": (None, _P),
    "vmm_console": (_P, _P, _P),
    "vmm_send": (_SIZE, _P, _S, _SIZE),
    "vmm_free": (None, _P),
    "vmm_cancel": (None, _P),
    "vmm_stop_reason": (_S, _P),
    "vmm_stop_is_met": (_INT, _P),
    "vmm_stop_cpu": (_U32, _P),
    "vmm_stop_value": (_U32, _P),
    "vmm_stop_detail": (_S, _P),
    "vmm_stop_report": (_S, _P),
    "vmm_stop_console": (_S, _P),
    "vmm_stop_free": (None, _P),
    "vmm_snapshot_free": (None, _P),
    "vmm_page_list_pages": (ctypes.POINTER(_U64), _P),
    "vmm_page_list_size": (_SIZE, _P),
    "vmm_page_list_free": (None, _P),
}


@functools.lru_cache(maxsize=None)
def library():
    """The loaded library. Raises OSError when there is none."""
    loaded = ctypes.CDLL(os.environ.get("VMM_LIBRARY") or ctypes.util.find_library("vmm") or _SONAME)
    for functions, more in ((_FALLIBLE, (_P,)), (_OTHERS, ())):
        for name, (result, *parameters) in functions.items():
            function = getattr(loaded, name)
            function.restype = result
            function.argtypes = (*parameters, *more)
    loaded.Registers = _Registers
    return loaded


def call(name, *arguments):
    """Calls a function that can fail: what it returned, or Error."""
    error = ctypes.c_void_p()
    result = getattr(library(), name)(*arguments, ctypes.byref(error))
    if result:
        return result
    lib = library()
    code, message = "Unknown", f"{name} failed"
    if error:
        code = lib.vmm_error_code(error).decode()
        message = lib.vmm_error_message(error).decode(errors="replace")
        lib.vmm_error_free(error)
    raise Error(code, message)
