"""Going back in a guest's time with Debian's gdb: every moment is exactly what it was.

    gdb_reverse_test.py PATH-OF-VMM GUEST16 GUEST32 GUEST64 USER

The guests are tests/guests/reverse.S, and reverse_user.S.
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

import vmm_process
from gdb_test import Client
from vmm_process import Guest, Running, eventually, listens, needs_kvm, vmm

GUESTS = {}  # by mode, from the command line
START, BYTE_TAKEN, TICK, DONE = 0x1000, 0x1100, 0x1200, 0x1300
USER = 0x1100
COUNT, TICKS, BYTE, TIME = 0x2000, 0x2004, 0x2008, 0x200c
MOST_CHECKPOINTS = 64  # are kept

# Runs inside of gdb: what it sees is printed as JSON, a line for each moment.
INSIDE = r"""
import json, re
def run(command):
    return gdb.execute(command, to_string=True)
def value(name):
    return int(gdb.parse_and_eval("$" + name).format_string(format="x"), 16)
def moment():
    names = REGISTERS
    memory = bytes(gdb.selected_inferior().read_memory(0x2000, 0x40)).hex()
    stack = bytes(gdb.selected_inferior().read_memory(0xe00, 0x100)).hex()
    return {"registers": {n: value(n) for n in names}, "memory": memory, "stack": stack}
def tell(what, **more):
    print("JSON " + json.dumps({"what": what, **more}), flush=True)
def whole():
    "Ends the script when the oldest checkpoint may be forgotten."
    text = run("monitor record")
    print(text)
    if int(re.search(r"behind (\d+) checkpoints", text)[1]) < MOST_CHECKPOINTS: return
    tell("forgotten")
    run("kill")
    gdb.execute("quit")
"""
GENERAL = {
    "real": ["eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", "esp", "eip", "eflags", "cs", "ss", "ds"],
    "long": ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "rip", "eflags", "cs", "ss", "r8", "r15"],
}
GENERAL["protected"] = GENERAL["real"]
PC = {"real": "eip", "protected": "eip", "long": "rip"}


class Reversed(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.path = self.folder / "gdb"

    def start(self, mode, *options):
        running = Running(self, ["run", "--kernel", GUESTS[mode], "--boot", f"flat,mode={mode}", "--mem", "4M",
                                 "--gdb", f"unix:{self.path}", "--gdb-wait", "--irqchip", "user", *options],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertTrue(eventually(lambda: listens(self.path)))
        running.process.stdin.write(b"A")
        running.process.stdin.flush()
        return running

    def gdb(self, mode, script):
        """What the script tells, and all that gdb says."""
        file = self.folder / "script.py"
        file.write_text(INSIDE.replace("REGISTERS", repr(GENERAL[mode])).replace(
            "MOST_CHECKPOINTS", str(MOST_CHECKPOINTS)) + script)
        done = subprocess.run(["gdb", "--batch", "-nx", "-ex", "set confirm off", "-ex", "set pagination off",
                               "-ex", f"set remotetimeout {vmm_process.PATIENCE}",
                               "-ex", f"target remote {self.path}", "-x", str(file)],
                              capture_output=True, timeout=vmm_process.PATIENCE * 5)
        text = done.stdout.decode() + done.stderr.decode()
        told = [json.loads(line[5:]) for line in text.splitlines() if line.startswith("JSON ")]
        print("\n".join(line for line in text.splitlines() if not line.startswith("JSON ")))
        return told, text

    def recorded(self, mode, script):
        """As gdb(), of a guest that is recorded from its start; also how many steps lie between checkpoints.

        It asks for its byte and counts until its ticks have come, as often as the host lets it. What has forgotten its
        start by then (whole()) is another guest's turn, with fewer checkpoints."""
        for every in (150, 1500, 15000):
            self.setUp()
            self.start(mode)
            told, text = self.gdb(mode, f"""
print(run("monitor record on {every}"))
{script}""")
            if not told or told[-1]["what"] != "forgotten":
                return told, text, every
        self.fail(text)


@needs_kvm
@unittest.skipUnless(shutil.which("gdb"), "needs gdb")
class Exactly(Reversed):
    def back_and_forth(self, mode):
        """From stop to stop, across a byte of COM1, interrupts, RDTSC and checkpoints; back, and forth again."""
        told, text, every = self.recorded(mode, f"""
tell("start", **moment())
for place in ({BYTE_TAKEN}, {TICK}, {DONE}):
    run("hbreak *%d" % place)
forward = []
while True:
    run("continue")
    forward.append(moment())
    if forward[-1]["registers"]["{PC[mode]}"] == {DONE}: break
tell("forward", moments=forward)
whole()
back = []
for i in range(len(forward) - 1):
    run("reverse-continue")
    back.append(moment())
tell("back", moments=back)
print(run("reverse-continue"))
tell("beginning", **moment())
again = []
for i in range(len(forward)):
    run("continue")
    again.append(moment())
tell("again", moments=again)
run("delete")
print(run("continue"))
tell("present", **moment())
run("stepi")
tell("beyond", **moment())
run("kill")
""")
        told = {entry.pop("what"): entry for entry in told}
        forward = told["forward"]["moments"]
        ticks = len(forward) - 2  # at least three; one more may have been on its way
        self.assertGreaterEqual(ticks, 3)
        self.assertEqual([m["registers"][PC[mode]] for m in forward], [BYTE_TAKEN, *[TICK] * ticks, DONE], text)
        steps, checkpoints = (int(number) for number in re.search(r"(\d+) steps behind (\d+) checkpoints", text).groups())
        self.assertIn(checkpoints, (-(-steps // every), steps // every + 1))
        self.assertEqual(told["back"]["moments"], forward[-2::-1])
        self.assertEqual(told["beginning"], told["start"])
        self.assertEqual(told["again"]["moments"], forward)
        self.assertEqual(told["present"], forward[-1])
        self.assertEqual(text.count("No more reverse-execution history"), 2, text)
        self.assertNotEqual(told["beyond"], told["present"])  # and it lives on
        memory = bytes.fromhex(forward[-1]["memory"])
        self.assertEqual(memory[BYTE - 0x2000], ord("A"))
        self.assertEqual(memory[TICKS - 0x2000], ticks)
        self.assertNotEqual(memory[TIME - 0x2000:TIME - 0x2000 + 4], bytes(4))

    def test_in_long_mode(self):
        self.back_and_forth("long")

    def test_in_protected_mode(self):
        self.back_and_forth("protected")

    def test_in_real_mode(self):
        self.back_and_forth("real")

    def steps(self, mode):
        """Into an interrupt's handler and out of it, instruction by instruction, backwards and forwards."""
        told, text, _ = self.recorded(mode, f"""
run("hbreak *{TICK}")
run("continue")
run("delete")
forward = [moment()]
for i in range(12):
    run("stepi")
    forward.append(moment())
tell("forward", moments=forward)
back = []
for i in range(12):
    run("reverse-stepi")
    back.append(moment())
tell("back", moments=back)
run("reverse-stepi")
tell("interrupted", **moment())
run("reverse-stepi")
run("stepi")
tell("there", **moment())
run("stepi")
tell("delivered", **moment())
run("kill")
""")
        told = {entry.pop("what"): entry for entry in told}
        forward = told["forward"]["moments"]
        self.assertEqual(told["back"]["moments"], forward[-2::-1], text)
        interrupted, delivered = told["interrupted"], told["delivered"]
        self.assertEqual(delivered, forward[0])
        self.assertEqual(told["there"], interrupted)
        self.assertLess(interrupted["registers"][PC[mode]], TICK)
        self.assertGreaterEqual(interrupted["registers"][PC[mode]], BYTE_TAKEN)
        stack = {"real": "esp", "protected": "esp", "long": "rsp"}[mode]
        self.assertGreater(interrupted["registers"][stack], delivered["registers"][stack])
        self.assertEqual(interrupted["memory"], delivered["memory"])

    def test_steps_in_long_mode(self):
        self.steps("long")

    def test_steps_in_protected_mode(self):
        self.steps("protected")

    def test_steps_in_real_mode(self):
        self.steps("real")

    def test_back_to_where_data_was_written(self):
        for mode in ("long", "protected", "real"):
            with self.subTest(mode=mode):
                told, text, _ = self.recorded(mode, f"""
run("hbreak *{DONE}")
run("continue")
whole()
run("delete")
run("watch *(int*){TICKS}")
for i in range(3):
    print(run("reverse-continue"))
    tell("ticks", **moment())
while moment()["registers"]["{PC[mode]}"] != {START}: run("reverse-continue")
for i in range(2):
    print(run("continue"))
    tell("forward", **moment())
run("kill")
""")
                told = [(entry["what"], bytes.fromhex(entry["memory"])[4], entry["registers"][PC[mode]]) for entry in told]
                # Before the instruction that writes, going back; behind it, going forward.
                last = told[0][1]
                self.assertGreaterEqual(last, 2)
                self.assertEqual([t[:2] for t in told[:3]], [("ticks", last), ("ticks", last - 1), ("ticks", last - 2)], text)
                self.assertEqual([t[2] for t in told[:3]], [TICK] * 3, text)
                self.assertEqual([t[:2] for t in told[3:]], [("forward", 1), ("forward", 2)], text)
                self.assertIn("No more reverse-execution history", text)


@needs_kvm
class Refused(Reversed):
    def monitor(self, client, command):
        client.send("qRcmd," + command.encode().hex())
        text = ""
        while (answer := client.answer()) != "OK":
            self.assertTrue(answer.startswith("O"), answer)
            text += bytes.fromhex(answer[1:]).decode()
        return text

    def general(self, client):
        """RAX to R15 and RIP: the time stamp counter, which is a register here, too, never stands still."""
        return client.ask("g")[:17 * 16]

    def connect(self, *options):
        self.start("long", *options)
        client = Client(self, self.path)
        client.ask("?")
        return client

    def test_what_was_not_recorded_cannot_be_gone_back_to(self):
        client = self.connect()
        self.assertIn("monitor record on", client.ask("bs"))
        self.assertIn("monitor record on", client.ask("bc"))
        self.assertIn("ReverseStep+;ReverseContinue+", client.ask("qSupported"))

    def test_what_cannot_be_recorded_is_named(self):
        for options, reason in ((("--cpus", "2"), "2 CPUs"), (("--irqchip", "split"), "--irqchip user"),
                                (("--rng",), "rng0")):
            with self.subTest(reason=reason):
                self.setUp()
                client = self.connect(*options)
                self.assertIn(reason, self.monitor(client, "record on"))
                self.assertIn(reason, client.ask("bs"))

    def test_the_past_is_not_changed(self):
        client = self.connect()
        self.assertIn("step by step", self.monitor(client, "record on"))
        for _ in range(5):
            self.assertTrue(client.ask("vCont;s:1").startswith("T05"))
        before = self.general(client)
        self.assertTrue(client.ask("bs").startswith("T05"))
        self.assertIn("in its past", client.ask(f"M{COUNT:x},1:55"))
        self.assertIn("in its past", client.ask("P0=1100000000000000"))
        self.assertIn("in its past", self.monitor(client, "checkpoint"))
        self.assertIn("at step 4", self.monitor(client, "record"))
        self.assertIn("replaylog:end", client.ask("vCont;c"))
        self.assertEqual(self.general(client), before)
        # In the present it is; then history has a gap there, and goes on.
        self.assertEqual(client.ask(f"M{COUNT:x},1:55"), "OK")
        self.assertTrue(client.ask("vCont;s:1").startswith("T05"))
        self.assertTrue(client.ask("bs").startswith("T05"))
        self.assertEqual(client.ask(f"m{COUNT:x},1"), "55")
        self.assertTrue(client.ask("bs").startswith("T05"))
        self.assertEqual(client.ask(f"m{COUNT:x},1"), "00")

    def test_rewind_forgets_what_followed(self):
        client = self.connect()
        self.monitor(client, "checkpoint here")
        self.monitor(client, "record on")
        client.ask("vCont;s:1")
        client.ask("bs")
        self.assertIn("checkpoint here", self.monitor(client, "rewind"))
        self.assertIn("monitor record on", client.ask("bs"))

    def test_interrupt_while_playing(self):
        client = self.connect()
        self.monitor(client, "record on 1000000")
        self.assertEqual(client.ask(f"Z1,{DONE:x},1"), "OK")
        self.assertTrue(client.ask("vCont;c").startswith("T05"))
        self.assertEqual(client.ask(f"z1,{DONE:x},1"), "OK")
        client.send("bc")
        client.socket.sendall(b"\x03")
        self.assertRegex(client.answer(), "^T0[25]")
        self.assertIn("replaylog:end", client.ask("vCont;c"))

    def test_who_leaves_in_the_past_leaves_the_guest_in_the_present(self):
        control = self.folder / "control"
        client = self.connect("--control", control)
        self.monitor(client, "record on")
        for _ in range(3):
            client.ask("vCont;s:1")
        now = self.general(client)
        for _ in range(3):
            client.ask("bs")
        self.assertNotEqual(self.general(client), now)
        self.assertEqual(client.ask("D"), "OK")
        again = Client(self, self.path)
        again.ask("?")
        # It has gone on from there: to where the byte is waited for, and further.
        self.assertTrue(again.ask(f"m{BYTE:x},1") in ("41", "00"))
        code, _, err = vmm("ctl", control, "quit")
        self.assertEqual(code, 0, err)

    def waiting(self, guest, *options):
        """A guest that stands before its first instruction, and a debugger."""
        file = self.folder / "guest"
        file.write_bytes(guest.code)
        running = Running(self, ["run", "--kernel", file, "--boot", "flat,mode=long", "--mem", "4M",
                                 "--gdb", f"unix:{self.path}", "--gdb-wait", "--irqchip", "user", *options],
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.assertTrue(eventually(lambda: listens(self.path)))
        client = Client(self, self.path)
        client.ask("?")
        return running, client

    def stop(self, client):
        """The next stop, and what was said before it."""
        said = ""
        while (answer := client.answer()).startswith("O"):
            said += bytes.fromhex(answer[1:]).decode()
        return answer, said

    def rip(self, client):
        return int.from_bytes(bytes.fromhex(client.ask("p10")), "little")

    def record(self, guest, *options):
        """A debugger, and what it is told when this guest has run with a recording from its first instruction on."""
        _, client = self.waiting(guest, *options)
        self.monitor(client, "record on")
        client.send("vCont;c")
        return client, *self.stop(client)

    def test_what_cannot_be_recorded_ends_the_recording(self):
        kvmclock = Guest().raw([0x90, 0xB9, 0x01, 0x4D, 0x56, 0x4B, 0xB8, 0x01, 0x50, 0, 0, 0x31, 0xD2])  # mov ecx, ...
        kvmclock.raw([0x0F, 0x30]).hang()  # wrmsr
        dma = Guest().raw([0x90, 0x66, 0xBA, 0x14, 0x05, 0x31, 0xC0, 0xEF]).hang()  # mov dx, 0x514; xor eax, eax; out dx, eax
        for guest, reason, rip in ((kvmclock, "kvmclock", START + 13), (dma, "fw_cfg", START + 8)):
            with self.subTest(reason=reason):
                self.setUp()
                client, answer, said = self.record(guest)
                self.assertTrue(answer.startswith("T02"), answer)
                self.assertIn(reason, said)
                self.assertEqual(self.rip(client), rip)
                # What was recorded before is there, until the guest goes on.
                self.assertTrue(client.ask("bs").startswith("T05"))
                self.assertLess(self.rip(client), rip)
                self.assertIn("replaylog:begin", client.ask("bc"))
                self.assertEqual(self.rip(client), START)
                self.assertIn("replaylog:end", client.ask("vCont;c"))
                self.assertEqual(self.rip(client), rip)
                self.assertTrue(client.ask("vCont;s:1").startswith("T05"))
                self.assertTrue(client.ask("bs").startswith("E."))

    def test_user_code_is_recorded_or_ends_the_recording(self):
        guest = Guest()
        guest.code = pathlib.Path(GUESTS["user"]).read_bytes()
        _, client = self.waiting(guest)
        self.monitor(client, "record on")
        client.send("vCont;c")
        time.sleep(1)
        client.socket.sendall(b"\x03")
        answer, said = self.stop(client)
        self.assertTrue(answer.startswith("T02"), answer)
        if "CPL 3" in said:  # where nothing stops such code, it has not been reached
            self.assertLess(self.rip(client), USER)
        self.assertTrue(client.ask("bs").startswith("T05"))
        self.assertIn("replaylog:begin", client.ask("bc"))
        self.assertEqual(self.rip(client), START)
        self.assertIn("replaylog:end", client.ask("vCont;c"))

    def test_timed_checkpoints_make_themselves(self):
        client = self.connect()
        self.assertIn("100 ms at most", self.monitor(client, "checkpoint every 1ms"))
        self.assertIn("every 5s", self.monitor(client, "checkpoint every now"))
        self.assertIn("every 100 ms", self.monitor(client, "checkpoint every 100ms"))

        def several():
            client.send("vCont;c")
            time.sleep(0.3)
            client.socket.sendall(b"\x03")
            client.answer()
            return self.monitor(client, "checkpoints").count(" ago") > 2

        self.assertTrue(eventually(several))
        self.assertIn("by itself", self.monitor(client, "checkpoint every off"))
        self.assertIn("checkpoint 1;", self.monitor(client, "rewind 1"))

    def test_end_of_the_guest_can_be_gone_back_from(self):
        # lidt with nothing; ud2: a triple fault.
        guest = Guest().raw([0x90] * 4).raw([0x0F, 0x01, 0x1C, 0x25, 0, 0x20, 0, 0]).raw([0x0F, 0x0B])
        client, answer, _ = self.record(guest, "--on-crash", "gdb")
        self.assertTrue(answer.startswith("T06"), answer)
        self.assertTrue(client.ask("bs").startswith("T05"))
        self.assertEqual(client.ask("p10")[:4], "0410")  # at LIDT
        self.assertTrue(client.ask("bs").startswith("T05"))
        self.assertEqual(client.ask("p10")[:4], "0310")


if __name__ == "__main__":
    for mode in ("real", "protected", "long", "user"):
        GUESTS[mode] = os.path.abspath(sys.argv.pop(2))
    vmm_process.main()
