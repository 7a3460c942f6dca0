"""Debian's gdb on every kind of guest in every state: 16, 32 and 64 bit, with one and four CPUs, before the first
instruction, in a loop, halted, between two device accesses, restored from a file, crashed.

    gdb_matrix_test.py PATH-OF-VMM

Each cell asks for the same things: the threads, the architecture, registers and memory that can be read and written; and
where the guest still lives, a breakpoint that is met, a step, and a guest that goes on without its debugger.
"""
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
        return self.start(guest, "--cpus", str(self.cpus), *options, mode=self.mode)

    def wait_for_the_loop(self, running):
        self.assertEqual(read_until(running.process.stdout.fileno(), "go"), "go")

    def looks(self):
        """What every cell asks for, and `judge` looks at."""
        register = MODES[self.mode][1]
        return ["show architecture", "info threads", "print/x $pc", f"set ${register} = 0x1234", f"print/x ${register}",
                "set *(int*)0x3000 = 0x55667788", "print/x *(int*)0x3000"]

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

    def goes_on(self):
        """A debugger can come again and finds it running still."""
        self.assertIn("$1 = 1", self.gdb("print $pc != 0", "kill"))

    def test_before_the_first_instruction(self):
        guest, at, _ = counting(self.mode)
        running = self.begin(guest, "--gdb-wait")
        text = self.gdb(*self.looks(), *self.meets(at), "detach")
        self.assertEqual(self.judge(text, START), [at, at, at + 2])
        self.wait_for_the_loop(running)
        self.goes_on()

    def test_running(self):
        guest, at, _ = counting(self.mode)
        running = self.begin(guest)
        self.wait_for_the_loop(running)
        text = self.gdb(*self.looks(), *self.meets(at), "detach")
        # Behind the last `out`, at the earliest: the byte was seen.
        self.assertEqual(self.judge(text, at - 1, at + 2), [at, at, at + 2])
        self.goes_on()

    def test_halted(self):
        guest, at, _ = halted(self.mode)
        running = self.begin(guest)
        self.wait_for_the_loop(running)
        # Sent elsewhere, it does not wait for an interrupt any more: this is how gdb calls functions.
        text = self.gdb(*self.looks(), f"set $pc = {at + 2:#x}", "stepi", "print/x $pc", "detach")
        self.assertEqual(self.judge(text, at - 2, at + 1), [at])
        self.goes_on()

    def test_between_two_device_accesses(self):
        guest, at, _ = reading_a_device(self.mode)
        running = self.begin(guest)
        self.wait_for_the_loop(running)
        register = MODES[self.mode][1]
        text = self.gdb(*self.looks(), f"set ${register} = {0 if self.mode == 'real' else 0xA0000:#x}", *self.meets(at), "detach")
        self.assertEqual(self.judge(text, START, at + 2), [at, at, at + 2])
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
        text = self.gdb(*self.looks(), *self.meets(at), "detach")
        self.assertEqual(self.judge(text, at - 1, at + 2), [at, at, at + 2])
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
        text = self.gdb(*self.looks(), "monitor info crash", "kill")
        self.judge(text, at, at + 8)
        self.assertIn("panic" if self.mode == "real" else "triple fault", text)
        self.assertNotEqual(running.wait(), 0)


def cells():
    """One class for each mode and number of CPUs; unittest finds them by name."""
    for mode in MODES:
        for cpus in (1, 4):
            name = f"{mode.capitalize()}Mode{cpus}Cpus"
            yield name, needs_kvm(needs_gdb(type(name, (Cell,), {"mode": mode, "cpus": cpus})))


globals().update(cells())


def load_tests(loader, _tests, _pattern):
    """Cell itself is none of them, and those of gdb_test are run there."""
    suite = unittest.TestSuite()
    for name, _ in cells():
        suite.addTests(loader.loadTestsFromTestCase(globals()[name]))
    return suite


if __name__ == "__main__":
    vmm_process.main()
