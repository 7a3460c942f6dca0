"""Debian's gdb on every kind of guest in every state: 16, 32 and 64 bit, with one and four CPUs, before the first
instruction, in a loop, halted, between two device accesses, restored from a file, crashed; and CPUs that nobody has started.

    gdb_matrix_test.py PATH-OF-VMM

Each cell asks for the same things: the threads, the architecture, registers and memory that can be read and written, every
monitor command; and where the guest still lives, a breakpoint that is met, a step, Ctrl-C while it runs, and a guest that
goes on without its debugger.
"""
import json
import subprocess
import unittest

import vmm_process
from gdb_test import START, Debugged, needs_gdb
from vmm_process import Guest, Running, eventually, listens, needs_kvm, read_until, vmm

# gdb's name for the architecture, the register that is written, `lidt [0x4000]`, and what puts the address 0xa0000, where no
# device answers, into (ds and) ebx.
MODES = {
    "real": ("i8086", "ebx", [0x0F, 0x01, 0x1E, 0x00, 0x40], [0xB8, 0x00, 0xA0, 0x8E, 0xD8, 0x31, 0xDB]),
    "protected": ("i386", "ebx", [0x0F, 0x01, 0x1D, 0x00, 0x40, 0, 0], [0xBB, 0, 0, 0x0A, 0]),
    "long": ("i386:x86-64", "rbx", [0x0F, 0x01, 0x1C, 0x25, 0x00, 0x40, 0, 0], [0xBB, 0, 0, 0x0A, 0]),
}
LOOP = [0xFF, 0xC0, 0xEB, 0xFC]  # again: inc (e)ax; jmp again
CODE = {"real": "16-bit", "protected": "32-bit", "long": "64-bit"}  # as `info cpus` has it

NO_LINUX = {"real": "there is no Linux kernel", "protected": "there is no Linux kernel",
            "long": "Nothing says where a Linux kernel has"}

# What each answers wherever the guest is: one of its words, or one for each mode. In this order: rewind needs a checkpoint.
MONITOR = {
    "help": "xlate ADDRESS [CR3]",
    "arch": {"real": "described as i8086 ", "protected": "described as i386 ", "long": "described as i386:x86-64 "},
    "info version": "vmm",
    "info registers": "CPU 0\nRAX ",
    "info cr": {"real": "cr0 0x10\n", "protected": "cr0 0x11\n", "long": "cr0 0x80000033\n"},
    "info msr": "lstar          0xc0000082 0x0\n",
    "info msr 0xfe": "0xfe ",  # MTRRcap
    "info mem": "0x000000000000 0x0000003fffff RAM, 4 MiB",
    "info slots": "slot 0 GPA 0x0 size 0x",
    "info tlb": {"real": "Paging is off", "protected": "Paging is off", "long": "0x0000000000000000: 0x"},
    "info devices": "uart0\n",
    "info devices uart0": '"type": "uart16550"',
    "info devices none": "There is no device 'none'",
    "info breakpoints": "There are none",
    "xlate 0x3000": "GPA 0x3000, RAM",
    "xlate 0x3000 0x400000": {"real": "GPA 0x3000, RAM", "protected": "GPA 0x3000, RAM", "long": "the next table is not in RAM"},
    "gpa2hva 0x3000": "GPA 0x3000 is HVA 0x",
    "gpa2hva 0x400000": "There is no RAM at GPA 0x400000",
    "kaslr": "Without --symbols",
    "dmesg": NO_LINUX,
    "ps": NO_LINUX,
    "lsmod": NO_LINUX,
    "record": "ecorded",
    "checkpoint every off": "No checkpoint is made by itself",
    "irq 23": "Interrupt line 23 was raised",
    "irq 24": "Lines are 0 to 23",
    "none": "There is no command 'none'",
}
# The chips' state is here or in KVM.
CHIPS = {"info lapic": "lapic", "info ioapic": "ioapic", "info irq": "ioapic", "info pic": "pic", "info pit": "pit"}


def hello(mode):
    """Says "go" on COM1; `mov dx, ...` needs a prefix only where operands have 32 bits."""
    guest = Guest()
    for byte in b"go":
        guest.raw(([] if mode == "real" else [0x66]) + [0xBA, 0xF8, 0x03, 0xB0, byte, 0xEE])
    return guest


def counting(mode):
    guest = hello(mode)
    return guest, START + len(guest.code), guest.raw(LOOP)


def halted(mode):
    guest = hello(mode).raw([0xFB])  # sti: who halts with interrupts off is over
    return guest, START + len(guest.code), guest.raw([0xF4, 0x90, 0xEB, 0xFC])  # again: hlt; nop; jmp again


def reading_a_device(mode):
    guest = hello(mode).raw(MODES[mode][3])
    at = START + len(guest.code)
    # again: mov al, [bx] or [rbx]; jmp again
    return guest, at, guest.raw([0x8A, 0x07 if mode == "real" else 0x03, 0xEB, 0xFC])


class Cell(Debugged):
    mode = "long"
    cpus = 1

    def begin(self, guest, *options):
        return self.start(guest, "--cpus", str(self.cpus), "--irqchip", self.irqchip, *options, mode=self.mode)

    @property
    def irqchip(self):
        return "user" if self.cpus == 1 else "kernel"

    def wait_for_the_loop(self, running):
        self.assertEqual(read_until(running.process.stdout.fileno(), "go"), "go")

    def looks(self):
        """What every cell asks for, and `judge` looks at."""
        register = MODES[self.mode][1]
        return ["show architecture", "info threads", "print/x $pc", f"set ${register} = 0x1234", f"print/x ${register}",
                "set *(int*)0x3000 = 0x55667788", "print/x *(int*)0x3000", *self.monitors()]

    def monitors(self):
        """All monitor commands that leave a guest as it is; what they answer is for `answers`."""
        commands = [*MONITOR, *CHIPS, "info cpus", "info exits", "info trace 2", "info events 2", "log 2", "info crash", "checkpoint one",
                    "snapshot two", "checkpoints", "rewind one", "rewind three"]
        return ["python import json; print('MONITOR ' + json.dumps({c: gdb.execute('monitor ' + c, to_string=True) for c in "
                f"{commands!r}}}))", "maintenance flush register-cache"]

    def answers(self, text):
        return json.loads(next(line for line in text.splitlines() if line.startswith("MONITOR ")).removeprefix("MONITOR "))

    def judge_monitor(self, text, crashed=False):
        answers = self.answers(text)
        for command, expected in MONITOR.items():
            said = expected if isinstance(expected, str) else expected[self.mode]
            self.assertIn(said, answers[command], command)
        for command, device in CHIPS.items():
            said = f"{device}" if self.irqchip == "user" else "It is in KVM"
            self.assertIn(said, answers[command], command)
        cpus = answers["info cpus"].splitlines()
        self.assertEqual(len(cpus), self.cpus)
        self.assertRegex(cpus[0], rf"^\* CPU 0 pc 0x1[0-9a-f]{{3}} CPL 0 {CODE[self.mode]}$")
        for cpu, line in enumerate(cpus[1:], start=1):
            self.assertEqual(line, f"  CPU {cpu} pc 0xfffffff0 CPL 0 16-bit")
        self.assertRegex(answers["info exits"], r"unclaimed +\d+\ncompleted +\d+\n")
        self.assertRegex(answers["info trace 2"], "^(last exits of vCPU|No exits are recorded)")
        self.assertRegex(answers["info events 2"], r"irq gsi 23 raised\n.* irq gsi 23 lowered\n")
        log = answers["log 2"].splitlines()
        self.assertEqual(len(log), 2)
        self.assertRegex(log[-1], r"^ +-?0\.000000 s (vcpu\d #|irq gsi )")
        self.assertEqual([line.split()[0] for line in log], sorted((line.split()[0] for line in log), key=float))
        self.assertEqual("has not crashed" in answers["info crash"], not crashed)
        self.judge_checkpoints(answers, crashed)

    def judge_checkpoints(self, answers, crashed):
        self.assertIn("Checkpoint one is at 0x1", answers["checkpoint one"])
        self.assertIn("Checkpoint two is at 0x1", answers["snapshot two"])
        self.assertRegex(answers["checkpoints"], "(?s)^one  .*\ntwo  ")
        self.assertIn("it cannot be set back" if crashed else "as it was at checkpoint one", answers["rewind one"])
        self.assertIn("there are one, two", answers["rewind three"])

    def judge(self, text, first=1, last=None):
        """The program counter lies in the guest's code (first to last), and what was written is read back."""
        self.assertIn(f'"{MODES[self.mode][0]}"', text)
        for cpu in range(self.cpus):
            self.assertIn(f'"CPU {cpu}"', text)
        self.assertNotIn(f'"CPU {self.cpus}"', text)
        values = [int(line.split("= ")[1], 16) for line in text.splitlines() if line.startswith("$")]
        self.assertGreaterEqual(values[0], first, text)
        self.assertLessEqual(values[0], first if last is None else last, text)
        self.assertEqual(values[1:3], [0x1234, 0x55667788], text)
        return values[3:]

    def meets(self, at):
        """A breakpoint that is met twice, and a step away from it."""
        return [f"break *{at:#x}", "continue", "print/x $pc", "continue", "print/x $pc", "delete", "stepi", "print/x $pc"]

    def stopped_by_ctrl_c(self):
        """With Debugged.gdb(interrupts=1)."""
        return ["set debug remote 1", "continue", "set debug remote 0", "print/x $pc"]

    def judge_ctrl_c(self, text, times=1):
        self.assertEqual(text.count("SIGINT, Interrupt."), times, text)

    def goes_on(self):
        """A debugger can come again and finds it running still."""
        self.assertIn("$1 = 1", self.gdb("print $pc != 0", "kill"))

    def test_before_the_first_instruction(self):
        guest, at, _ = counting(self.mode)
        running = self.begin(guest, "--gdb-wait")
        text = self.gdb(*self.looks(), *self.meets(at), *self.stopped_by_ctrl_c(), "detach", interrupts=1)
        *met, stopped = self.judge(text, START)
        self.assertEqual(met, [at, at, at + 2])
        self.assertIn(stopped, (at, at + 2))
        self.judge_ctrl_c(text)
        self.judge_monitor(text)
        self.wait_for_the_loop(running)
        self.goes_on()

    def test_running(self):
        guest, at, _ = counting(self.mode)
        running = self.begin(guest)
        self.wait_for_the_loop(running)
        text = self.gdb(*self.looks(), *self.meets(at), *self.stopped_by_ctrl_c(), "detach", interrupts=1)
        # Behind the last `out`, at the earliest: the byte was seen.
        *met, stopped = self.judge(text, at - 1, at + 2)
        self.assertEqual(met, [at, at, at + 2])
        self.assertIn(stopped, (at, at + 2))
        self.judge_ctrl_c(text)
        self.judge_monitor(text)
        self.goes_on()

    def test_halted(self):
        guest, at, _ = halted(self.mode)
        running = self.begin(guest)
        self.wait_for_the_loop(running)
        # Sent elsewhere, it does not wait for an interrupt any more: this is how gdb calls functions.
        text = self.gdb(*self.looks(), *self.stopped_by_ctrl_c(), f"set $pc = {at + 2:#x}", "stepi", "print/x $pc", "detach",
                        interrupts=1)
        stopped, stepped = self.judge(text, at - 2, at + 1)
        self.assertIn(stopped, (at, at + 1))
        self.assertEqual(stepped, at)
        self.judge_ctrl_c(text)
        self.judge_monitor(text)
        self.goes_on()

    def test_between_two_device_accesses(self):
        guest, at, _ = reading_a_device(self.mode)
        running = self.begin(guest)
        self.wait_for_the_loop(running)
        register = MODES[self.mode][1]
        text = self.gdb(*self.looks(), f"set ${register} = {0 if self.mode == 'real' else 0xA0000:#x}", *self.meets(at),
                        *self.stopped_by_ctrl_c(), "detach", interrupts=1)
        *met, stopped = self.judge(text, START, at + 2)
        self.assertEqual(met, [at, at, at + 2])
        self.assertIn(stopped, (at, at + 2))
        self.judge_ctrl_c(text)
        self.judge_monitor(text)
        self.goes_on()

    def test_restored(self):
        guest, at, _ = counting(self.mode)
        control, saved = self.folder / "control", self.folder / "saved"
        running = self.begin(guest, "--control", control)
        self.wait_for_the_loop(running)
        code, _, err = vmm("ctl", control, "snapshot", saved)
        self.assertEqual(code, 0, err)
        self.gdb("kill")
        running.wait()
        self.path = self.folder / "restored"
        Running(self, ["restore", saved, "--gdb", f"unix:{self.path}"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertTrue(eventually(lambda: listens(self.path)))
        text = self.gdb(*self.looks(), *self.meets(at), *self.stopped_by_ctrl_c(), "detach", interrupts=1)
        *met, stopped = self.judge(text, at - 1, at + 2)
        self.assertEqual(met, [at, at, at + 2])
        self.assertIn(stopped, (at, at + 2))
        self.judge_ctrl_c(text)
        self.judge_monitor(text)
        self.goes_on()

    def test_crashed(self):
        guest = hello(self.mode)
        at = START + len(guest.code)
        if self.mode == "real":
            # Some processors do not look at the limit of the table of interrupts: a panic that the guest reports.
            guest.raw([0xBA, 0x05, 0x05, 0xB0, 0x01, 0xEE, 0xEB, 0xFE])  # mov dx, 0x505; mov al, 1; out dx, al
        else:
            guest.raw(MODES[self.mode][2]).raw([0x0F, 0x0B])  # an empty table of interrupts, ud2
        running = self.begin(guest, "--on-crash", "gdb")
        read_until(running.process.stderr.fileno(), "stays for a debugger")
        text = self.gdb(*self.looks(), "continue", "stepi", "monitor info crash", "kill")
        self.judge(text, at, at + 8)
        self.judge_monitor(text, crashed=True)
        self.assertEqual(text.count("The guest cannot go on"), 2, text)
        self.assertIn("panic" if self.mode == "real" else "triple fault", text)
        self.assertNotEqual(running.wait(), 0)


class SeveralCpus(Cell):
    def test_cpu_that_nobody_has_started(self):
        """It can be looked at; it goes nowhere, which Ctrl-C ends; and what is set of it is what the start-up takes away."""
        guest, at, _ = counting(self.mode)
        running = self.begin(guest)
        self.wait_for_the_loop(running)
        text = self.gdb("thread 2", "print/x $pc", "set $esi = 0x1234", "print/x $esi", "monitor info registers", "info threads",
                        "set scheduler-locking on", *self.stopped_by_ctrl_c(), "set debug remote 1", "stepi",
                        "set debug remote 0", "print/x $pc", "thread 1", "print/x $pc", "detach", interrupts=2)
        values = [int(line.split("= ")[1], 16) for line in text.splitlines() if line.startswith("$")]
        self.assertEqual(values[:4], [0xFFFFFFF0, 0x1234, 0xFFFFFFF0, 0xFFFFFFF0], text)
        self.assertIn(values[4], (at, at + 2))
        self.assertIn('"CPU 1" (waiting for start-up)', text)
        self.assertIn("CPU 1\nRAX", text)
        self.judge_ctrl_c(text, times=2)
        self.goes_on()


def cells():
    """One class for each mode and number of CPUs; unittest finds them by name."""
    for mode in MODES:
        for cpus in (1, 4):
            name = f"{mode.capitalize()}Mode{cpus}Cpus"
            base = Cell if cpus == 1 else SeveralCpus
            yield name, needs_kvm(needs_gdb(type(name, (base,), {"mode": mode, "cpus": cpus})))


globals().update(cells())


def load_tests(loader, _tests, _pattern):
    """Cell itself is none of them, and those of gdb_test are run there."""
    suite = unittest.TestSuite()
    for name, _ in cells():
        suite.addTests(loader.loadTestsFromTestCase(globals()[name]))
    return suite


if __name__ == "__main__":
    vmm_process.main()
