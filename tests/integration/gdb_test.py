"""The gdb server from outside: Debian's gdb with scripts on small guests, and clients that misbehave.

    gdb_test.py PATH-OF-VMM
"""
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest

import vmm_process
from vmm_process import Guest, Running, eventually, listens, needs_kvm, read_until, vmm

needs_gdb = unittest.skipUnless(shutil.which("gdb"), "needs gdb")
START = 0x1000  # where flat guests are put


def frame(payload):
    return b"$" + payload.encode() + b"#%02x" % (sum(payload.encode()) % 256)


class Client:
    """Speaks the protocol itself."""

    def __init__(self, test, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(vmm_process.PATIENCE)
        test.addCleanup(self.socket.close)
        self.socket.connect(str(path))

    def send(self, payload):
        self.socket.sendall(frame(payload), socket.MSG_NOSIGNAL)

    def answer(self):
        """The payload of the next packet, run lengths undone."""
        data = b""
        while True:
            byte = self.socket.recv(1)
            if not byte:
                raise EOFError("the server has hung up")
            data += byte
            begin = data.find(b"$")
            end = data.find(b"#", begin)
            if begin >= 0 and end >= 0 and len(data) == end + 3:
                break
        try:
            self.socket.sendall(b"+", socket.MSG_NOSIGNAL)
        except OSError:  # that was its last word
            pass
        text = b""
        wire = data[begin + 1:end]
        i = 0
        while i < len(wire):
            if wire[i:i + 1] == b"*":
                text += text[-1:] * (wire[i + 1] - 29)
                i += 2
            else:
                text += wire[i:i + 1]
                i += 1
        return text.decode("latin-1")

    def ask(self, payload):
        self.send(payload)
        return self.answer()


class Usage(unittest.TestCase):
    def expect(self, text, *options):
        code, out, err = vmm("run", *options)
        self.assertEqual((code, out), (2, ""), err)
        self.assertIn(text, err)

    def test_addresses_that_others_reach_are_refused(self):
        self.expect("127.0.0.1", "--gdb", "tcp:0.0.0.0:1234")
        self.expect("unix:PATH", "--gdb", "nonsense")

    def test_what_does_not_fit_together(self):
        self.expect("--gdb unix:PATH", "--gdb-wait")
        self.expect("--gdb unix:PATH", "--on-crash", "gdb")
        self.expect("--control PATH", "--on-crash", "stop")
        self.expect("--serial", "--gdb", "stdio")
        self.expect("neither guest nor host", "--gdb", "tcp::0", "--gdb-time", "mine")

    def test_symbols_that_cannot_be_read(self):
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"no symbols\n")
            file.flush()
            code, _, err = vmm("run", "--gdb", "tcp::0", "--symbols", file.name)
            self.assertEqual(code, 2, err)
            self.assertIn("System.map", err)


class Debugged(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.path = self.folder / "gdb"

    def start(self, guest, *options, mode="long"):
        arguments = guest.arguments(self)
        arguments[arguments.index("flat")] = f"flat,mode={mode}"
        running = Running(self, [*arguments, "--gdb", f"unix:{self.path}", *options],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertTrue(eventually(lambda: listens(self.path)))
        return running

    def gdb(self, *commands, program=(), interrupts=0):
        """What gdb says to these commands, run after it has connected. Ctrl-C is pressed `interrupts` times: whenever gdb
        has let the guest go on, which it says while `set debug remote` is 1."""
        # On a busy host gdb would ask again before it is answered, and take the second answer for that to its next question.
        words = ["gdb", "--batch", "-nx", *program, "-ex", "set confirm off", "-ex", "set pagination off",
                 "-ex", f"set remotetimeout {vmm_process.PATIENCE}",
                 "-ex", f"target remote {self.path}"]
        for command in commands:
            words += ["-ex", command]
        with tempfile.TemporaryFile() as output:
            gdb = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE,
                                   preexec_fn=vmm_process.default_signals)
            text = ""
            try:
                for _ in range(interrupts):
                    text += read_until(gdb.stderr.fileno(), "Sending packet: $vCont;")
                    gdb.send_signal(signal.SIGINT)
                text += gdb.communicate(timeout=vmm_process.PATIENCE * 3)[1].decode()
            finally:
                gdb.kill()
                gdb.wait()
            output.seek(0)
            text = output.read().decode() + text
        print(text)
        return text


@needs_kvm
@needs_gdb
class Gdb(Debugged):
    def test_guest_waits_is_stepped_and_goes_on(self):
        guest = Guest().raw([0xB8, 1, 0, 0, 0])  # mov eax, 1
        guest.raw([0xFF, 0xC0])  # inc eax
        guest.say("on").exit(5)
        running = self.start(guest, "--gdb-wait")
        text = self.gdb("print/x $rip", "stepi", "stepi", "print $eax", "print/x $rip", "detach")
        self.assertIn(f"$1 = {START:#x}", text)
        self.assertIn("$2 = 2", text)
        self.assertIn(f"$3 = {START + 7:#x}", text)
        self.assertEqual(running.wait(), 11)
        self.assertEqual(running.process.stdout.read(), b"on")

    def test_time_goes_on_on_request(self):
        guest = Guest().raw([0x66, 0xBA, 0x08, 0x06, 0xED, 0x89, 0x04, 0x25, 0x00, 0x50, 0, 0])  # mov dx, 0x608; in eax, dx; mov [0x5000], eax
        guest.raw([0xEB, 0xF2])  # jmp to the first
        self.start(guest, "--gdb-wait", "--gdb-time", "host")
        text = self.gdb(f"hbreak *{START + 12:#x}", "continue", "print *(unsigned *)0x5000", "shell sleep 0.5", "continue",
                        "print *(unsigned *)0x5000", "kill")
        first, last = (int(re.search(rf"\${number} = (\d+)", text)[1]) for number in (1, 2))
        self.assertGreaterEqual((last - first) & 0xFFFFFF, 3579545 // 2)  # ACPI's timer

    def test_breakpoints_of_both_kinds_are_met_and_not_seen(self):
        guest = Guest().raw([0x90] * 8).say("x").exit(5)
        self.start(guest, "--gdb-wait")
        text = self.gdb(f"break *{START + 2:#x}", f"hbreak *{START + 5:#x}", "continue", "print/x $rip", "x/3xb $rip",
                        "monitor info breakpoints", "continue", "print/x $rip", "delete", "continue")
        self.assertIn(f"$1 = {START + 2:#x}", text)
        self.assertIn("0x90\t0x90\t0x90", text)
        self.assertIn(f"$2 = {START + 5:#x}", text)
        self.assertIn("Breakpoint 2", text)
        self.assertIn("exited with code 013", text)

    def test_registers_are_written(self):
        guest = Guest().raw([0x90]).raw([0x66, 0xBA, 0xF4, 0x00, 0xEE]).hang()  # mov dx, 0xf4; out dx, al
        running = self.start(guest, "--gdb-wait")
        text = self.gdb("set $rax = 7", "print $cr0", "print/x $efer", "print $cs_base", "print/x $gdt_limit",
                        "set $xmm3.v2_int64[0] = 0x1234", "print/x $xmm3.v2_int64[0]", "set $fs_base = 0x5000",
                        "print/x $fs_base", "info registers lstar", "print/x $eflags", "detach")
        self.assertIn("PG", text)
        self.assertIn("0x1234", text)
        self.assertIn("0x5000", text)
        self.assertRegex(text, r"lstar +0x0")
        self.assertEqual(running.wait(), 15)

    def test_task_priority_is_written_or_refused(self):
        for irqchip in ("user", "split", "kernel"):
            with self.subTest(irqchip):
                running = self.start(Guest().raw([0x90]).hang(), "--gdb-wait", "--irqchip", irqchip)
                text = self.gdb("set $cr8 = 5", "stepi", "print $cr8", "set $cr8 = 77", "print $cr8", "kill")
                self.assertEqual(re.findall(r"^\$\d = (\d+)", text, re.MULTILINE), ["5", "5"])
                self.assertIn("leaves bits", text)
                running.wait()

    def test_time_stamp_counter_is_written_or_refused(self):
        self.start(Guest().raw([0x90]).hang(), "--gdb-wait")
        text = self.gdb("set $tsc = 1", "print $tsc < (1 << 30) * 256", "set $gdt_limit = 0x1ffff",
                        "set $before = $tsc", "set $tsc = $before - 4000000000", "print $tsc < $before", "kill")
        self.assertIn('Could not write register "gdt_limit"', text)
        self.assertEqual(text.count("leaves the time stamp counter"), len(re.findall(r"\$[12] = 0", text)))

    def test_memory_is_read_and_written(self):
        guest = Guest().raw([0x90]).hang()
        self.start(guest, "--gdb-wait")
        text = self.gdb("set *(long*)0x3000 = 0x1122334455667788", "x/2xw 0x3000",
                        "maintenance packet Qqemu.PhyMemMode:1", "x/xg 0x3000", "x/xb 0xffffffffff000000",
                        "monitor xlate 0x3000", "monitor gpa2hva 0x3000", "kill")
        self.assertIn("0x55667788\t0x11223344", text)
        self.assertIn("0x1122334455667788", text)
        self.assertIn("Cannot access memory", text)
        self.assertIn("GPA 0x3000, RAM", text)

    def test_own_int3_reaches_the_guest(self):
        # IDT entry 3 leads to a handler that says so: lidt; int3.
        guest = Guest()
        guest.raw([0x48, 0xB8, 0x00, 0x20, 0, 0, 0, 0, 0, 0])  # mov rax, 0x2000: the handler
        guest.raw([0x48, 0xBB, 0x30, 0x30, 0, 0, 0, 0, 0, 0])  # mov rbx, 0x3030: gate 3
        guest.raw([0x66, 0x89, 0x03])  # mov [rbx], ax
        guest.raw([0x8C, 0xC9, 0x66, 0x89, 0x4B, 0x02])  # mov ecx, cs; mov [rbx+2], cx
        guest.raw([0x66, 0xC7, 0x43, 0x04, 0x00, 0x8E])  # mov word [rbx+4], 0x8e00
        guest.raw([0x48, 0xC1, 0xE8, 0x10, 0x66, 0x89, 0x43, 0x06])  # shr rax, 16; mov [rbx+6], ax
        guest.raw([0xBC, 0x00, 0x60, 0x00, 0x00])  # mov esp, 0x6000
        guest.raw([0x66, 0xC7, 0x04, 0x25, 0x00, 0x40, 0, 0, 0xFF, 0x0F])  # mov word [0x4000], 0xfff
        guest.raw([0x48, 0xC7, 0x04, 0x25, 0x02, 0x40, 0, 0, 0x00, 0x30, 0, 0])  # mov qword [0x4002], 0x3000
        guest.raw([0x0F, 0x01, 0x1C, 0x25, 0x00, 0x40, 0, 0])  # lidt [0x4000]
        guest.raw([0xCC])
        at = START + len(guest.code)  # where the handler comes back to
        guest.raw([0x90]).hang()
        guest.code = guest.code.ljust(0x1000, b"\x90") + Guest().say("trap").exit(5).code
        running = self.start(guest, "--gdb-wait", "--quirk", "complete-instructions=on")
        text = self.gdb(f"break *{at:#x}", "continue")
        self.assertIn("exited with code 013", text)
        self.assertEqual(running.process.stdout.read(), b"trap")

    def test_interrupt_stops_a_loop(self):
        running = self.start(Guest().say("go").hang())
        self.assertEqual(read_until(running.process.stdout.fileno(), "go"), "go")
        self.assertIn("$1 = 1", self.gdb("print $rip > 0", "detach"))
        client = Client(self, self.path)
        self.assertTrue(client.ask("?").startswith("T02"))
        client.send("vCont;c")
        client.socket.sendall(b"\x03")
        self.assertTrue(client.answer().startswith("T02"))
        client.socket.close()
        # Again, and the guest is still there.
        self.assertIn('"CPU 0" (running)', self.gdb("info threads", "kill"))
        self.assertEqual(running.wait(), 130)
        self.assertIn("by the debugger", running.process.stderr.read().decode())

    def test_all_cpus_are_threads(self):
        self.start(Guest().hang(), "--cpus", "4", "--gdb-wait")
        text = self.gdb("info threads", "thread 3", "print/x $rip", "monitor info cpus", "kill")
        self.assertIn('"CPU 0" (running)', text)
        self.assertIn('"CPU 3" (waiting for start-up)', text)
        self.assertIn("* CPU 2", text)

    def test_protected_mode(self):
        guest = Guest().raw([0x90, 0x40]).hang()  # nop; inc eax
        self.start(guest, "--gdb-wait", mode="protected")
        text = self.gdb("show architecture", "set $eax = 6", "stepi", "stepi", "print $eax", "x/i $pc", "kill")
        self.assertIn('"i386"', text)
        self.assertIn("$1 = 7", text)
        self.assertIn("jmp", text)

    def test_real_mode(self):
        guest = Guest().raw([0x90, 0x40]).hang()  # nop; inc ax
        self.start(guest, "--gdb-wait", mode="real")
        text = self.gdb("show architecture", "print/x $pc", "stepi", f"break *{START + 2:#x}", "continue",
                        "print/x $pc", "kill")
        self.assertIn('"i8086"', text)
        self.assertIn(f"$1 = {START:#x}", text)
        self.assertIn(f"$2 = {START + 2:#x}", text)

    def test_monitor_commands_answer(self):
        self.start(Guest().hang(), "--gdb-wait")
        commands = ["help", "info version", "info registers", "info cr", "info msr", "info msr 0x10", "info lapic",
                    "info ioapic", "info pic", "info pit", "info irq", "info mem", "info slots", "info tlb",
                    "info devices", "info devices uart0", "info exits", "info trace 4", "info events 4", "info cpus", "info breakpoints", "info crash",
                    "nmi", "irq 4", "kaslr", "arch"]
        text = self.gdb(*[f"monitor {command}" for command in commands], "kill")
        self.assertNotIn("Protocol error", text)
        self.assertNotIn("There is no command", text)
        for said in ("xlate ADDRESS", "CPU 0\nRAX", "cr0 0x80000033", "lstar", "0x00000010", "It is in KVM", "RAM, 4 MiB",
                     "slot 0 GPA 0", "uart16550", "pc 0x1000 CPL 0 64-bit", "There are none", "No exits are recorded", "has not crashed",
                     "gets an NMI", "line 4 was raised", "Without --symbols", "i386:x86-64"):
            self.assertIn(said, text)

    def test_monitor_does_nothing_when_it_cannot_do_with_a_word(self):
        self.start(Guest().hang(), "--gdb-wait", "--cpus", "2")
        text = self.gdb("monitor nmi 1", "monitor info registers 1", "monitor checkpoint every", "monitor checkpoint every 18446744073709552s",
                        "monitor xlate 1 2 3", "monitor rewind a b", "monitor checkpoints", "kill")
        self.assertNotIn("gets an NMI", text)
        self.assertNotIn("RAX", text)
        for said in ("'1' is a word too many: nmi\n", "'1' is a word too many: info registers\n", "checkpoint [NAME|every TIME|every off]\n",
                     "at least", "'3' is a word too many: xlate ADDRESS [CR3]\n", "'b' is a word too many: rewind [NAME]\n",
                     "There are none."):
            self.assertIn(said, text)

    def test_crashed_guest_stays(self):
        # lidt of an empty table, then ud2: triple fault.
        guest = Guest().raw([0x0F, 0x01, 0x1C, 0x25, 0x00, 0x40, 0, 0, 0x0F, 0x0B])
        running = self.start(guest, "--on-crash", "gdb")
        self.assertIn("stays for a debugger", read_until(running.process.stderr.fileno(), "stays for a debugger"))
        text = self.gdb("print/x $rip", "monitor info crash", "continue", "detach")
        self.assertIn("triple fault", text)
        self.assertNotEqual(running.wait(), 0)

    def crashed(self, *options):
        """A guest that is over and stays, and its control socket."""
        control = self.folder / "control"
        guest = Guest().raw([0x0F, 0x01, 0x1C, 0x25, 0x00, 0x40, 0, 0, 0x0F, 0x0B])
        running = self.start(guest, "--on-crash", "stop", "--control", control, *options)
        self.assertIn("stays for a debugger", read_until(running.process.stderr.fileno(), "stays for a debugger"))
        return running, control

    def test_crashed_guest_is_there_for_others_too(self):
        running, control = self.crashed()
        told = vmm("ctl", control, "status")
        self.assertTrue(told[1].startswith("crashed, "), told)
        for command in (["core", control, self.folder / "core"], ["snapshot", control, self.folder / "snapshot"]):
            code, _, err = vmm(*command)
            self.assertEqual(code, 0, err)
            self.assertTrue(command[2].exists())
        for command, state in (("pause", "paused"), ("resume", "crashed")):
            code, _, err = vmm("ctl", control, command)
            self.assertEqual(code, 0, err)
            self.assertTrue(vmm("ctl", control, "status")[1].startswith(f"{state}, "))
        self.assertIn("0x1008", self.gdb("print/x $rip", "detach"))
        self.assertNotEqual(running.wait(), 0)

    def test_timeout_ends_a_crashed_guest_that_stays(self):
        running, _ = self.crashed("--timeout", "3")
        self.assertEqual(running.wait(), 18)  # what the guest's end was

    def test_refusal_says_why(self):
        # More than debug registers hold, in a page table.
        running = self.start(Guest().raw([0x90]).hang(), "--gdb-wait")
        text = self.gdb("set $table = $cr3", "rwatch -location *(char(*)[64])$table", "stepi", "kill")
        self.assertIn("Could not insert", text)
        self.assertRegex(running.process.stderr.read().decode(), "Reads of 0x[0-9a-f]+ cannot be watched: its page has code, page tables")

    def test_breakpoint_in_code_that_the_guest_writes_next_is_met(self):
        guest = Guest()
        guest.raw([0xC6, 0x04, 0x25, 0x00, 0x20, 0, 0, 0x90])  # mov byte [0x2000], nop
        guest.raw([0x66, 0xC7, 0x04, 0x25, 0x01, 0x20, 0, 0, 0xEB, 0xFE])  # mov word [0x2001], jmp $
        guest.raw([0xB8, 0x00, 0x20, 0, 0, 0xFF, 0xE0])  # mov eax, 0x2000; jmp rax
        self.start(guest, "--gdb-wait")
        text = self.gdb("set breakpoint always-inserted on", "break *0x2000", "continue", "print/x $rip", "x/3xb $rip",
                        "monitor info breakpoints", "stepi", "print/x $rip", "kill")
        self.assertIn("$1 = 0x2000", text)
        self.assertIn("0x90\t0xeb\t0xfe", text)
        self.assertIn("its page guarded", text)
        self.assertIn("$2 = 0x2001", text)

    def test_breakpoint_in_a_page_that_is_written_all_the_time_is_met(self):
        # Stack and data in the page of the code: pushes, a LOCKed addition, a string instruction.
        guest = Guest()
        guest.raw([0xBC, 0x00, 0x20, 0, 0])  # mov esp, 0x2000
        guest.raw([0x6A, 0x05, 0x58])  # push 5; pop rax
        guest.raw([0xF0, 0x01, 0x04, 0x25, 0x00, 0x1F, 0, 0])  # lock add [0x1f00], eax
        guest.raw([0xBF, 0x10, 0x1F, 0, 0, 0xB9, 0x03, 0, 0, 0, 0xF3, 0xAA])  # mov edi, 0x1f10; mov ecx, 3; rep stosb
        at = START + len(guest.code)
        guest.raw([0x90]).exit(5)
        self.start(guest, "--gdb-wait")
        text = self.gdb(f"break *{at:#x}", "continue", "print/x $rip", "print $eax", "print *(int*)0x1f00", "x/4xb 0x1f10",
                        "delete", "continue")
        self.assertIn(f"$1 = {at:#x}", text)
        self.assertIn("$2 = 5", text)
        self.assertIn("$3 = 5", text)
        self.assertIn("0x05\t0x05\t0x05\t0x00", text)
        self.assertIn("exited with code 013", text)

    def test_written_data_stops_the_guest(self):
        # As many as no debug registers are there for; a neighbour that nobody watches.
        guest = Guest()
        for i in range(6):
            guest.raw([0xC7, 0x04, 0x25, 0x04 + 8 * i, 0x30, 0, 0, 7, 0, 0, 0])  # mov dword [0x3004 + 8 * i], 7
            guest.raw([0xC7, 0x04, 0x25, 8 * i, 0x30, 0, 0, i + 1, 0, 0, 0])  # mov dword [0x3000 + 8 * i], i + 1
        guest.exit(5)
        self.start(guest, "--gdb-wait")
        text = self.gdb(*[f"watch *(int*){0x3000 + 8 * i:#x}" for i in range(6)], *["continue", "print/x $rip"] * 6, "delete",
                        "continue")
        for i in range(6):
            self.assertIn(f"New value = {i + 1}", text)
            self.assertIn(f"${i + 1} = {START + 22 * (i + 1):#x}", text)
        self.assertIn("exited with code 013", text)

    def test_read_data_stops_the_guest(self):
        for chips in ("kernel", "split", "user"):
            with self.subTest(irqchip=chips):
                guest = Guest()
                guest.raw([0x8B, 0x04, 0x25, 0x04, 0x30, 0, 0])  # mov eax, [0x3004]: a neighbour
                guest.raw([0xC7, 0x04, 0x25, 0x00, 0x30, 0, 0, 7, 0, 0, 0])  # mov dword [0x3000], 7: no read
                guest.raw([0x8B, 0x1C, 0x25, 0x00, 0x30, 0, 0])  # mov ebx, [0x3000]
                first = START + len(guest.code)
                guest.raw([0xFF, 0x04, 0x25, 0x00, 0x30, 0, 0])  # inc dword [0x3000]
                second = START + len(guest.code)
                guest.raw([0xC7, 0x04, 0x25, 0x00, 0x30, 0, 0, 9, 0, 0, 0])  # mov dword [0x3000], 9
                third = START + len(guest.code)
                guest.raw([0xBE, 0x00, 0x30, 0, 0, 0xAD])  # mov esi, 0x3000; lodsd
                fourth = START + len(guest.code)
                guest.raw([0x90]).exit(5)
                running = self.start(guest, "--gdb-wait", "--irqchip", chips)
                text = self.gdb("rwatch *(int*)0x3000", "continue", "print/x $rip", "print $ebx", "delete", "awatch *(int*)0x3000",
                                "continue", "print/x $rip", "continue", "print/x $rip", "continue", "print/x $rip", "print $eax",
                                "delete", "continue")
                self.assertIn("Hardware read watchpoint 1", text)
                self.assertIn("Value = 7", text)
                self.assertIn(f"$1 = {first:#x}", text)
                self.assertIn("$2 = 7", text)
                self.assertIn("Hardware access (read/write) watchpoint 2", text)
                self.assertIn("Old value = 7\nNew value = 8", text)
                self.assertIn(f"$3 = {second:#x}", text)
                self.assertIn("Old value = 8\nNew value = 9", text)
                self.assertIn(f"$4 = {third:#x}", text)
                self.assertIn("Value = 9", text)
                self.assertIn(f"$5 = {fourth:#x}", text)
                self.assertIn("$6 = 9", text)
                self.assertIn("exited with code 013", text)
                self.assertEqual(running.wait(), 11)  # and its socket has gone

    def test_large_range_is_watched_for_reads(self):
        guest = Guest()
        guest.raw([0x48, 0x8B, 0x04, 0x25, 0xF8, 0x2F, 0, 0])  # mov rax, [0x2ff8]: before it
        guest.raw([0x48, 0x8B, 0x04, 0x25, 0xFC, 0x3F, 0, 0])  # mov rax, [0x3ffc]: in both pages
        first = START + len(guest.code)
        guest.raw([0xF3, 0x0F, 0xB8, 0x04, 0x25, 0x00, 0x40, 0, 0])  # popcnt eax, [0x4000], which not every KVM knows
        second = START + len(guest.code)
        guest.raw([0xBE, 0x10, 0x30, 0, 0, 0xBF, 0x00, 0x50, 0, 0, 0xB9, 0x04, 0, 0, 0])  # mov esi, 0x3010; mov edi, 0x5000; mov ecx, 4
        guest.raw([0xF3, 0xA4])  # rep movsb
        third = START + len(guest.code)
        guest.raw([0x90]).exit(5)
        self.start(guest, "--gdb-wait")
        text = self.gdb("set *(long*)0x3ffc = 0x1234567890", "set *(int*)0x3010 = 0x11223344",
                        "set breakpoint always-inserted on", "rwatch *(char(*)[8192])0x3000", "continue",
                        "print/x $rip", "print/x $rax", "continue", "print/x $rip", "print $eax", "monitor info breakpoints",
                        "continue", "print/x $rip", "delete", f"tbreak *{third + 1:#x}", "continue", "print/x *(int*)0x5000", "continue")
        self.assertIn(f"$1 = {first:#x}", text)
        self.assertIn("$2 = 0x1234567890", text)
        self.assertIn(f"$3 = {second:#x}", text)
        self.assertIn("$4 = 2", text)  # 0x12
        self.assertIn("8192 bytes, 2 pages hidden", text)
        self.assertRegex(text, r"\$5 = 0x10[0-9a-f]+")  # somewhere in the string instruction, or behind it
        self.assertIn("$6 = 0x11223344", text)
        self.assertIn("exited with code 013", text)

    def test_large_range_is_watched(self):
        guest = Guest()
        guest.raw([0xC6, 0x04, 0x25, 0xFF, 0x2F, 0, 0, 1])  # mov byte [0x2fff], 1: before it
        guest.raw([0xC6, 0x04, 0x25, 0xFF, 0x4F, 0, 0, 2])  # mov byte [0x4fff], 2
        at = START + len(guest.code)
        guest.raw([0x0F, 0x11, 0x04, 0x25, 0x00, 0x40, 0, 0])  # movups [0x4000], xmm0
        after = START + len(guest.code)
        guest.raw([0x90]).exit(5)
        self.start(guest, "--gdb-wait")
        text = self.gdb("set $xmm0.v2_int64[0] = 0x1234", "watch *(char(*)[8192])0x3000", "continue", "print/x $rip",
                        "continue", "print/x $rip", "monitor info breakpoints", "delete", "continue")
        self.assertIn(f"$1 = {at:#x}", text)
        self.assertIn(f"$2 = {after:#x}", text)
        self.assertIn("exited with code 013", text)

    def test_write_that_spans_two_guarded_pages_is_whole(self):
        # KVM reports it as two.
        guest = Guest().raw([0x48, 0xC7, 0xC0, 0x78, 0x56, 0x34, 0x12])  # mov rax, 0x12345678
        guest.raw([0x48, 0xC1, 0xE0, 0x10])  # shl rax, 16
        guest.raw([0x48, 0x89, 0x04, 0x25, 0xFC, 0x3F, 0, 0])  # mov [0x3ffc], rax
        at = START + len(guest.code)
        guest.raw([0x90]).exit(5)
        self.start(guest, "--gdb-wait")
        text = self.gdb("watch *(char(*)[8192])0x3000", "continue", "print/x $rip", "print/x *(long*)0x3ffc", "delete",
                        "continue")
        self.assertIn(f"$1 = {at:#x}", text)
        self.assertIn("$2 = 0x123456780000", text)
        self.assertIn("exited with code 013", text)

    def test_stack_is_not_watched(self):
        # The processor itself pushes there: refused at once, or told when the page becomes a stack.
        guest = Guest().raw([0xC7, 0x04, 0x25, 0x00, 0x30, 0, 0, 7, 0, 0, 0])  # mov dword [0x3000], 7
        guest.raw([0xBC, 0x00, 0x38, 0, 0, 0x6A, 0x05, 0x90])  # mov esp, 0x3800; push 5; nop
        guest.exit(5)
        running = self.start(guest, "--gdb-wait")
        text = self.gdb("watch *(int*)0x3000", "continue", "continue", "print/x $rip", "print *(int*)0x37f8", "stepi", "delete",
                        "continue")
        self.assertIn("New value = 7", text)
        self.assertIn("0x3000 cannot be watched any longer: a stack is in the same page", text)
        self.assertIn(f"$1 = {START + 18:#x}", text)
        self.assertIn("$2 = 5", text)
        self.assertIn("Could not insert hardware watchpoint 1", text)
        self.assertIn("exited with code 013", text)
        self.assertIn("0x3000 cannot be watched: a stack", running.process.stderr.read().decode())

    def test_condition_is_judged_here(self):
        # 1000 visits, of which one matters.
        guest = Guest().raw([0x31, 0xDB])  # xor ebx, ebx
        at = START + len(guest.code)
        guest.raw([0xFF, 0xC3, 0x81, 0xFB, 0xE8, 0x03, 0, 0, 0x72, 0xF6])  # again: inc ebx; cmp ebx, 1000; jb again
        guest.exit(5)
        for cpus in ("1", "2"):
            self.start(guest, "--gdb-wait", "--cpus", cpus)
            text = self.gdb("set debug remote 1", f"break *{at:#x} if $rbx == 700", "continue", "set debug remote 0",
                            "print $ebx", "print/x $rip", f"hbreak *{at:#x} if $rbx == 900", "delete 1", "continue",
                            "print $ebx", "delete", "continue")
            self.assertIn("$1 = 700", text)
            self.assertIn(f"$2 = {at:#x}", text)
            self.assertIn("$3 = 900", text)
            self.assertEqual(text.count("Sending packet: $vCont;c"), 1, "gdb was asked each time")
            self.assertIn("exited with code 013", text)
            self.path = self.path.with_name("another")

    def test_interrupt_while_conditions_are_judged(self):
        guest = Guest().raw([0x90, 0xEB, 0xFD])  # again: nop; jmp again
        self.start(guest, "--gdb-wait")
        client = Client(self, self.path)
        client.ask("?")
        for kind in "01":
            # const8 0; end: never.
            self.assertEqual(client.ask(f"Z{kind},{START:x},1;X3,220027"), "OK")
            for _ in range(20):
                client.send("vCont;c")
                client.socket.sendall(b"\x03")
                self.assertTrue(client.answer().startswith("T02"))
            self.assertEqual(client.ask(f"m{START:x},3"), "90ebfd")
            self.assertEqual(client.ask(f"z{kind},{START:x},1"), "OK")

    def test_rewind_to_a_checkpoint(self):
        # Counts in memory and in a register.
        guest = Guest().raw([0xFF, 0xC3, 0x89, 0x1C, 0x25, 0x00, 0x30, 0, 0])  # again: inc ebx; mov [0x3000], ebx
        guest.raw([0xEB, 0xF5])  # jmp again
        at = START + 9
        self.start(guest, "--gdb-wait")
        client = Client(self, self.path)
        client.ask("?")

        def monitor(command):
            client.send("qRcmd," + command.encode().hex())
            text = ""
            while (answer := client.answer()) != "OK":
                self.assertTrue(answer.startswith("O"), answer)
                text += bytes.fromhex(answer[1:]).decode()
            return text

        def count():
            return int.from_bytes(bytes.fromhex(client.ask("m3000,4")), "little"), int.from_bytes(bytes.fromhex(client.ask("p1")), "little")

        def run(times):
            for _ in range(times):
                self.assertTrue(client.ask("vCont;c").startswith("T05"))
                self.assertEqual(client.ask(f"z0,{at:x},1"), "OK")
                self.assertTrue(client.ask("vCont;s:1").startswith("T05"))
                self.assertEqual(client.ask(f"Z0,{at:x},1"), "OK")

        self.assertEqual(monitor("checkpoints"), "There are none.\n")
        self.assertIn("There is no checkpoint", monitor("rewind"))
        self.assertEqual(client.ask(f"Z0,{at:x},1"), "OK")
        run(3)
        self.assertEqual(count(), (3, 3))
        self.assertIn("Checkpoint three is at 0x1000", monitor("checkpoint three"))
        run(2)
        self.assertIn("Checkpoint 1 is at", monitor("checkpoint"))
        run(2)
        self.assertEqual(count(), (7, 7))
        self.assertIn("checkpoint three", monitor("rewind three"))
        self.assertEqual(count(), (3, 3))
        # What was planted is in no snapshot, and stands again behind it.
        self.assertEqual(client.ask(f"m{at:x},2"), "ebf5")
        run(1)
        self.assertEqual(count(), (4, 4))
        self.assertIn("checkpoint 1;", monitor("rewind"))
        self.assertEqual(count(), (5, 5))
        self.assertIn("there are three, 1", monitor("rewind four"))
        names = monitor("checkpoints")
        self.assertIn("three", names)

    def test_rewind_and_guarded_pages(self):
        # The log of written pages survives the change of slots that a watchpoint means.
        guest = Guest().raw([0xC7, 0x04, 0x25, 0x00, 0x30, 0, 0, 7, 0, 0, 0])  # mov dword [0x3000], 7
        guest.raw([0xC7, 0x04, 0x25, 0x00, 0x50, 0, 0, 8, 0, 0, 0])  # mov dword [0x5000], 8
        guest.raw([0xC7, 0x04, 0x25, 0x00, 0x30, 0, 0, 9, 0, 0, 0])  # mov dword [0x3000], 9
        guest.hang()
        self.start(guest, "--gdb-wait")
        text = self.gdb("monitor checkpoint", "stepi", "watch *(char(*)[4096])0x3000", "continue", "print *(int*)0x3000",
                        "print *(int*)0x5000", "delete", "monitor rewind", "maintenance flush register-cache",
                        "print *(int*)0x3000", "print *(int*)0x5000", "print/x $rip", "kill")
        for said in ("$1 = 9", "$2 = 8", "$3 = 0", "$4 = 0", f"$5 = {START:#x}"):
            self.assertIn(said, text)

    def test_snapshot_has_nothing_of_a_debugger(self):
        control, saved = self.folder / "control", self.folder / "saved"
        guest = Guest().raw([0x90, 0x90, 0x90]).hang()
        self.start(guest, "--gdb-wait", "--control", control)
        client = Client(self, self.path)
        client.ask("?")
        self.assertEqual(client.ask(f"Z0,{START + 3:x},1"), "OK")
        self.assertTrue(client.ask("vCont;c").startswith("T05"))
        code, _, err = vmm("ctl", control, "snapshot", saved)
        self.assertEqual(code, 0, err)
        self.assertNotIn(bytes([0x90, 0x90, 0x90, 0xCC]), saved.read_bytes())
        self.assertEqual(client.ask(f"Z0,{START + 2:x},1"), "OK")  # the conversation goes on

    def test_ctl_lets_a_debugger_connect(self):
        control = self.folder / "control"
        guest = Guest().hang()
        running = Running(self, [*guest.arguments(self), "--control", control], stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.assertTrue(eventually(control.exists))
        code, out, err = vmm("ctl", control, "gdb", f"unix:{self.path}")
        self.assertEqual((code, out.strip(), err), (0, f"unix:{self.path}", ""))
        self.assertIn("CPU 0", self.gdb("info threads", "detach"))
        code, _, err = vmm("ctl", control, "gdb", f"unix:{self.path}2")
        self.assertEqual(code, 1, err)
        vmm("ctl", control, "quit")
        self.assertEqual(running.wait(), 130)


@needs_kvm
class Protocol(Debugged):
    def test_debugger_that_vanishes_lets_the_guest_go_on(self):
        guest = Guest().raw([0x90] * 4).say("x").exit(5)
        running = self.start(guest, "--gdb-wait")
        client = Client(self, self.path)
        self.assertTrue(client.ask("?").startswith("T02"))
        self.assertEqual(client.ask(f"Z0,{START + 1:x},1"), "OK")
        client.socket.close()
        self.assertEqual(running.wait(), 11)

    def test_garbage_stops_nothing(self):
        running = self.start(Guest().say("go").hang())
        self.assertEqual(read_until(running.process.stdout.fileno(), "go"), "go")
        client = Client(self, self.path)
        client.socket.sendall(os.urandom(100000).replace(b"$", b""), socket.MSG_NOSIGNAL)
        client.socket.sendall(b"$" + b"a" * 200000 + b"#00", socket.MSG_NOSIGNAL)
        self.assertTrue(client.ask("?").startswith("T02"))
        self.assertEqual(client.ask("vNoSuchThing"), "")
        self.assertEqual(client.ask("D"), "OK")
        running.signal(signal.SIGTERM)
        self.assertEqual(running.wait(), 130)

    def test_end_while_a_debugger_holds_the_guest(self):
        running = self.start(Guest().hang(), "--gdb-wait")
        client = Client(self, self.path)
        self.assertTrue(client.ask("?").startswith("T02"))
        running.signal(signal.SIGTERM)
        self.assertEqual(running.wait(), 130)
        self.assertFalse(self.path.exists())

    def test_others_are_told_who_holds_the_guest(self):
        control = self.folder / "control"
        self.start(Guest().hang(), "--control", control)
        self.assertTrue(eventually(lambda: vmm("ctl", control, "status")[1].startswith("running, ")))
        client = Client(self, self.path)
        client.ask("?")
        self.assertTrue(vmm("ctl", control, "status")[1].startswith("held, "))
        self.assertEqual(client.ask("D"), "OK")
        self.assertTrue(eventually(lambda: vmm("ctl", control, "status")[1].startswith("running, ")))

    def test_debugger_is_told_that_the_guest_is_paused_from_elsewhere(self):
        control = self.folder / "control"
        self.start(Guest().raw([0x90]).hang(), "--gdb-wait", "--control", control)
        client = Client(self, self.path)
        client.ask("?")
        vmm("ctl", control, "pause")
        told = client.ask("vCont;s:1")
        self.assertEqual(told[0], "O")
        self.assertIn("paused from elsewhere", bytes.fromhex(told[1:]).decode())
        vmm("ctl", control, "resume")
        self.assertTrue(client.answer().startswith("T05"))
        self.assertTrue(client.ask("vCont;s:1").startswith("T05"))  # without a word

    def test_timeout_ends_a_held_guest(self):
        running = self.start(Guest().hang(), "--gdb-wait", "--timeout", "0.5")
        self.assertEqual(running.wait(), 26)

    def test_breakpoint_survives_a_reset(self):
        # Each machine meets it once.
        guest = Guest().raw([0x90] * 4).say("x").reset()
        self.start(guest, "--gdb-wait")
        client = Client(self, self.path)
        client.ask("?")
        self.assertEqual(client.ask(f"Z1,{START + 1:x},1"), "OK")
        for _ in range(2):
            self.assertTrue(client.ask("vCont;c").startswith("T05"))
            self.assertEqual(client.ask("p10"), (START + 1).to_bytes(8, "little").hex())
            self.assertEqual(client.ask(f"z1,{START + 1:x},1"), "OK")
            self.assertTrue(client.ask("vCont;s:1").startswith("T05"))
            self.assertEqual(client.ask(f"Z1,{START + 1:x},1"), "OK")

    def test_interrupt_while_the_guest_resets(self):
        # Over and over: some of these meet it between two machines, and what follows is about the next.
        self.start(Guest().raw([0x90] * 4).say("x").raw([0x90] * 50).reset(), "--gdb-wait")
        client = Client(self, self.path)
        self.assertEqual(client.ask("QStartNoAckMode"), "OK")
        client.ask("?")
        for i in range(300):
            client.send("vCont;c")
            time.sleep(i % 30 / 2000)
            client.socket.sendall(b"\x03")
            self.assertTrue(client.answer().startswith("T02"))
            self.assertEqual(len(client.ask("p10")), 16)
            self.assertEqual(client.ask(f"m{START:x},4"), "90909090")
            self.assertEqual(client.ask(f"Z1,{START + 0x2000:x},1"), "OK")
            self.assertEqual(client.ask(f"z1,{START + 0x2000:x},1"), "OK")

    def test_range_step_stays_in_the_range(self):
        guest = Guest().raw([0x90] * 16).exit(5)
        self.start(guest, "--gdb-wait")
        client = Client(self, self.path)
        client.ask("?")
        self.assertTrue(client.ask(f"vCont;r{START:x},{START + 10:x}:1").startswith("T05"))
        self.assertEqual(client.ask("p10"), (START + 10).to_bytes(8, "little").hex())

    def test_tcp_takes_any_port(self):
        guest = Guest().hang()
        running = Running(self, [*guest.arguments(self), "--gdb", "tcp:127.0.0.1:0"], stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        line = read_until(running.process.stderr.fileno(), "\n")
        port = int(line.strip().rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), vmm_process.PATIENCE) as connection:
            connection.sendall(frame("?"))
            self.assertEqual(connection.recv(1), b"+")


if __name__ == "__main__":
    vmm_process.main()
