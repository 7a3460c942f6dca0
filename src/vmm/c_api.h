/* The library for other languages than C++: opaque handles and plain values. docs/library.md tells
   what each function is for; here are the rules.

   - A function that can fail has `vmm_error** error` as its last parameter, which may be NULL. It
   returns 0 or NULL then, and *error is the caller's: vmm_error_free(). On success *error is left
   alone. Nothing that C++ throws comes out; without memory for the error itself *error is NULL.
   - What a function returns a pointer to that is not const is the caller's, who frees it with the
   function of its type. Pointers that are const live as long as what they were asked of.
   - Text is UTF-8 or what the guest sent, ends in a zero byte, and is copied when it is given.
   - Deadlines are nanoseconds from the call on; there is no waiting without one.
   - Handles may be used from several threads as vmm::Vm may: one vmm_run...() at a time,
   vmm_cancel(), vmm_pause() and vmm_resume() any time. Destroying one is for when nobody uses it. A
   vmm_config is one thread's. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vmm_config vmm_config;
typedef struct vmm_vm vmm_vm;
typedef struct vmm_snapshot vmm_snapshot;
typedef struct vmm_page_list vmm_page_list;
typedef struct vmm_stop vmm_stop;
typedef struct vmm_error vmm_error;

/* The version of the library, "0.1.0". */
const char* vmm_version(void);

/* What went wrong: the name of a code ("NoKvm", "BadConfig", ...: base/error.h), and a sentence. */
const char* vmm_error_code(const vmm_error* error);
const char* vmm_error_message(const vmm_error* error);
void vmm_error_free(vmm_error* error);

/* What a machine is. It starts as 512 MiB of memory, one CPU, and the guest that is built in. */
vmm_config* vmm_config_new(void);
void vmm_config_free(vmm_config* config);
void vmm_config_set_memory(vmm_config* config, uint64_t bytes);
void vmm_config_set_cpus(vmm_config* config, uint32_t count);
/* "auto", "none", "kernel", "split" or "user". */
int vmm_config_set_irqchip(vmm_config* config, const char* mode, vmm_error** error);
/* Seconds of guest time in one of the host's, 0: it stands still, and vmm_advance_time() moves it.
   ClockConfig::rate in vmm/config.h. */
void vmm_config_set_clock_rate(vmm_config* config, double rate);
void vmm_config_boot_builtin(vmm_config* config, const char* cmdline);
/* `initrd` may be NULL. */
void vmm_config_boot_kernel(vmm_config* config, const char* kernel, const char* initrd,
                            const char* cmdline);
/* `mode` is "real", "protected" or "long". */
int vmm_config_boot_flat(vmm_config* config, const void* code, size_t size, uint64_t address,
                         const char* mode, vmm_error** error);
/* All of what the machine of the snapshot was. */
void vmm_config_boot_snapshot(vmm_config* config, const vmm_snapshot* snapshot);
/* The same with memory that comes when it is touched, each page compared with its checksum: damage
   ends the run with "memory fault" (SnapshotBoot::faulted, docs/snapshot.md). `prefetch` is brought
   beforehand; it may be NULL, and has to be of this snapshot. vmm_create() fails with "Unsupported"
   where the host does not permit it. */
int vmm_config_boot_snapshot_faulted(vmm_config* config, const vmm_snapshot* snapshot,
                                     const vmm_page_list* prefetch, vmm_error** error);

/* A port on which the guest calls the program: vmm/hypercall.h. `function` is called on the calling
   CPU's thread; `call` lives as long as the call, and is what it may use of the machine. A snapshot
   has no functions; a clone has those of its machine. */
typedef struct vmm_call vmm_call;
typedef void (*vmm_hypercall)(vmm_call* call, void* context);
int vmm_config_add_hypercall(vmm_config* config, uint16_t port, vmm_hypercall function,
                             void* context, vmm_error** error);

/* A machine. What its COM1 sends is kept: the first 16 MiB of it. */
vmm_vm* vmm_create(const vmm_config* config, vmm_error** error);
void vmm_destroy(vmm_vm* vm);
char* vmm_console(const vmm_vm* vm, size_t* size);           /* `size` may be NULL; vmm_free() */
size_t vmm_send(vmm_vm* vm, const void* bytes, size_t size); /* to COM1: how many it took */
void vmm_free(void* text);

/* Runs the guest until it stops, or until it has come to what is said. */
vmm_stop* vmm_run(vmm_vm* vm, uint64_t deadline_ns, vmm_error** error);
vmm_stop* vmm_run_until_console(vmm_vm* vm, const char* text, uint64_t deadline_ns,
                                vmm_error** error);
vmm_stop* vmm_run_until_match(vmm_vm* vm, const char* pattern, uint64_t deadline_ns,
                              vmm_error** error);
vmm_stop* vmm_run_until_address(vmm_vm* vm, uint64_t gva, uint64_t deadline_ns, vmm_error** error);
vmm_stop* vmm_run_until_exits(vmm_vm* vm, uint64_t count, uint64_t deadline_ns, vmm_error** error);
vmm_stop* vmm_step(vmm_vm* vm, uint32_t cpu, uint64_t deadline_ns, vmm_error** error);
void vmm_cancel(vmm_vm* vm);
int vmm_pause(vmm_vm* vm, vmm_error** error);
int vmm_resume(vmm_vm* vm, vmm_error** error);
/* Any time, from any thread; with another clock rate than 1. */
int vmm_advance_time(vmm_vm* vm, uint64_t nanoseconds, vmm_error** error);

/* Why it stopped: "power-off", "deadline", "condition met", ... (vmm/stop_reason.h). */
const char* vmm_stop_reason(const vmm_stop* stop);
int vmm_stop_is_met(const vmm_stop* stop); /* what was waited for has come */
uint32_t vmm_stop_cpu(const vmm_stop* stop);
uint32_t vmm_stop_value(const vmm_stop* stop);     /* what was written to the debug-exit port */
const char* vmm_stop_detail(const vmm_stop* stop); /* one sentence, may be empty */
const char* vmm_stop_report(const vmm_stop* stop); /* many lines, may be empty */
const char* vmm_stop_console(
    const vmm_stop* stop); /* of vmm_run_until...(): what COM1 sent meanwhile */
void vmm_stop_free(vmm_stop* stop);

/* A CPU's state, while the guest does not run. General registers are in the order of their
   encodings: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 to r15. */
typedef struct vmm_registers {
  uint64_t gpr[16];
  uint64_t rip;
  uint64_t rflags;
} vmm_registers;
typedef struct vmm_control_registers {
  uint64_t cr0, cr2, cr3, cr4, cr8, efer;
} vmm_control_registers;
int vmm_get_registers(const vmm_vm* vm, uint32_t cpu, vmm_registers* registers, vmm_error** error);
int vmm_set_registers(vmm_vm* vm, uint32_t cpu, const vmm_registers* registers, vmm_error** error);
int vmm_get_control_registers(const vmm_vm* vm, uint32_t cpu, vmm_control_registers* registers,
                              vmm_error** error);
int vmm_get_msr(const vmm_vm* vm, uint32_t cpu, uint32_t index, uint64_t* value, vmm_error** error);
int vmm_set_msr(vmm_vm* vm, uint32_t cpu, uint32_t index, uint64_t value, vmm_error** error);

/* What is on its way to a CPU, and what keeps events away from it: flags are 0 or 1. Setting an
   exception as pending or injected injects it. */
typedef struct vmm_events {
  uint8_t exception_injected, exception_pending, exception_has_error;
  uint8_t exception; /* its vector */
  uint32_t exception_error;
  uint8_t interrupt_injected, interrupt_soft;
  uint8_t interrupt;        /* its vector */
  uint8_t interrupt_shadow; /* bit 0: behind MOV SS, bit 1: behind STI */
  uint8_t nmi_injected, nmi_masked;
  uint8_t nmi_pending; /* those that wait: 0 to 2 */
  uint8_t smm, smi_pending, smm_inside_nmi, latched_init;
  uint32_t sipi_vector;
} vmm_events;
int vmm_get_events(const vmm_vm* vm, uint32_t cpu, vmm_events* events, vmm_error** error);
int vmm_set_events(vmm_vm* vm, uint32_t cpu, const vmm_events* events, vmm_error** error);

/* Its local APIC, as reads in xAPIC mode show it, the ID of 8 bits; vector v is bit v % 32 of word
   v / 32. `version` and `ppr` are read-only; `divide` is the register. Not with irqchip "none". */
typedef struct vmm_lapic {
  uint32_t id, version, tpr, ppr, ldr, dfr, svr, esr;
  uint32_t isr[8], tmr[8], irr[8];
  uint64_t icr;
  uint32_t lvt_timer, lvt_thermal, lvt_performance, lvt_lint0, lvt_lint1, lvt_error;
  uint32_t initial_count, current_count, divide;
  uint32_t reserved; /* 0 */
  uint64_t tsc_deadline;
} vmm_lapic;
int vmm_get_lapic(const vmm_vm* vm, uint32_t cpu, vmm_lapic* lapic, vmm_error** error);
int vmm_set_lapic(vmm_vm* vm, uint32_t cpu, const vmm_lapic* lapic, vmm_error** error);

/* Guest memory by guest-physical addresses, and by a CPU's linear ones. All of it, or nothing. */
int vmm_read(const vmm_vm* vm, uint64_t gpa, void* bytes, size_t size, vmm_error** error);
int vmm_write(vmm_vm* vm, uint64_t gpa, const void* bytes, size_t size, vmm_error** error);
int vmm_read_virtual(const vmm_vm* vm, uint32_t cpu, uint64_t gva, void* bytes, size_t size,
                     vmm_error** error);
int vmm_write_virtual(vmm_vm* vm, uint32_t cpu, uint64_t gva, const void* bytes, size_t size,
                      vmm_error** error);

/* In a hypercall: who calls, and what was written to the port. */
uint32_t vmm_call_cpu(const vmm_call* call);
uint16_t vmm_call_port(const vmm_call* call);
uint64_t vmm_call_value(const vmm_call* call);
/* RIP is behind the instruction. What is set is the guest's when the function returns. */
void vmm_call_get_registers(const vmm_call* call, vmm_registers* registers);
void vmm_call_set_registers(vmm_call* call, const vmm_registers* registers);
int vmm_call_read(const vmm_call* call, uint64_t gpa, void* bytes, size_t size, vmm_error** error);
int vmm_call_write(vmm_call* call, uint64_t gpa, const void* bytes, size_t size, vmm_error** error);
int vmm_call_read_virtual(const vmm_call* call, uint64_t gva, void* bytes, size_t size,
                          vmm_error** error);
int vmm_call_write_virtual(vmm_call* call, uint64_t gva, const void* bytes, size_t size,
                           vmm_error** error);
/* Ends the run behind this instruction: "condition met", with this value; it may be run on. */
void vmm_call_stop(vmm_call* call, uint32_t value);

/* The machine at one moment: in memory, or in a file. */
vmm_snapshot* vmm_take_snapshot(vmm_vm* vm, vmm_error** error);
int vmm_reset_to(vmm_vm* vm, const vmm_snapshot* snapshot, vmm_error** error);
int vmm_save(vmm_vm* vm, const char* path, vmm_error** error);
/* Only what is not as in the file `base`, which has to stay. */
int vmm_save_increment(vmm_vm* vm, const char* path, const char* base, vmm_error** error);
vmm_snapshot* vmm_open_snapshot(const char* path, vmm_error** error);
void vmm_snapshot_free(vmm_snapshot* snapshot);
/* Which pages of 4 KiB of the snapshot's memory a machine has used so far, in order: of one that
   vmm_config_boot_snapshot_faulted() was for. Any time, from any thread. They are numbered as they
   lie in memory, without gaps between its regions. */
vmm_page_list* vmm_used_pages(const vmm_vm* vm, vmm_error** error);
/* One made of numbers, which may be in any order. */
vmm_page_list* vmm_new_page_list(const vmm_snapshot* snapshot, const uint64_t* pages, size_t count,
                                 vmm_error** error);
/* In a file; of a snapshot in a file only. */
vmm_page_list* vmm_read_page_list(const char* path, vmm_error** error);
int vmm_write_page_list(const vmm_page_list* list, const char* path, vmm_error** error);
const uint64_t* vmm_page_list_pages(const vmm_page_list* list); /* NULL when there are none */
size_t vmm_page_list_size(const vmm_page_list* list);           /* how many */
void vmm_page_list_free(vmm_page_list* list);
/* An independent machine that goes on from here, with a console of its own. */
vmm_vm* vmm_clone(vmm_vm* vm, vmm_error** error);

#ifdef __cplusplus
}
#endif
