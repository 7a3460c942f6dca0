"""What Debian's gdb can do in real, protected and long mode, on one CPU and on four.

    gdb_modes_test.py PATH-OF-VMM GUEST16 GUEST32 GUEST64

The guests are tests/guests/debugged.S, with symbols and line numbers. Outside of long mode their segments do not begin at
0: an address that a debugger sees is a linear one, and no register's value.
"""
import re
import subprocess
import sys
import tempfile
import unittest

import vmm_process
from gdb_test import Client, Debugged, needs_gdb
from vmm_process import needs_kvm

GUESTS = {}  # by mode, from the command line


class Image:
    """A guest's file as `vmm run` takes it, and where its symbols are."""

    def __init__(self, path):
        self.path = path
        self.code = tempfile.NamedTemporaryFile(suffix=".bin")
        subprocess.run(["objcopy", "-O", "binary", path, self.code.name], check=True)
        listed = subprocess.run(["nm", path], check=True, capture_output=True).stdout.decode()
        self.symbols = {name: int(value, 16) for value, _, name in (line.split() for line in listed.splitlines())}

    def arguments(self, _test):
        return ["run", "--kernel", self.code.name, "--boot", "flat", "--mem", "4M"]


def asked(*commands):
    """These, and what gdb sends meanwhile is shown."""
    return ["set debug remote 1", *commands, "set debug remote 0"]


class Mode(Debugged):
    mode = "long"
    cpus = 1

    @classmethod
    def setUpClass(cls):
        cls.image = Image(GUESTS[cls.mode])

    def begin(self, *options):
        return self.start(self.image, "--gdb-wait", "--cpus", str(self.cpus), *options, mode=self.mode)

    def at(self, symbol):
        return self.image.symbols[symbol]

    def ask_gdb(self, *commands):
        """What gdb says, and the values that it printed."""
        text = self.gdb(f"symbol-file {self.image.path}", *commands)
        return text, [int(value, 0) for value in re.findall(r"^\$\d+ = (0x[0-9a-f]+|\d+)", text, re.MULTILINE)]


class OneCpu(Mode):
    def test_breakpoints_and_their_conditions(self):
        self.begin()
        bx = "rbx" if self.mode == "long" else "ebx"  # whole: of others gdb cannot hand out a condition
        text, values = self.ask_gdb(
            "set breakpoint always-inserted on", "break begin", "continue", "print/x $pc", "x/i $pc", "monitor info breakpoints",
            "delete",
            *asked(f"break again if ${bx} == 100", "continue"), "print/x $pc", "print $ebx", "delete",
            *asked(f"hbreak again if ${bx} == 200", "continue"), "print/x $pc", "print $ebx", "delete",
            "set var *(int*)&COPY = 250",
            *asked(f"break again if ${bx} == *(int*){self.at('COPY'):#x}", "continue"), "print/x $pc", "print $ebx", "delete",
            "tbreak written", "continue", "print/x $pc", "kill")
        again = self.at("again")
        self.assertEqual(values, [self.at("begin"), again, 100, again, 200, again, 250, self.at("written")], text)
        self.assertIn("in a debug register" if self.mode == "real" else "planted at GPA", text)
        self.assertRegex(text, r"<begin>:\s+mov")
        self.assertEqual(text.count("Sending packet: $vCont;c"), 3, "gdb was asked each time")

    def test_more_hardware_breakpoints_than_debug_registers(self):
        running = self.begin()
        places = ("again", "written", "read", "changed", "copied")
        text, values = self.ask_gdb("tbreak begin", "continue", *[f"hbreak {place}" for place in places], "stepi", "delete 6",
                                    "continue", "print/x $pc", "kill")
        self.assertIn("Could not insert hardware breakpoint", text)
        self.assertEqual(values[-1], self.at("again"), text)
        self.assertRegex(running.process.stderr.read().decode(), "5 debug registers would be needed, [34] are there")

    def test_watchpoints(self):
        self.begin()
        text, values = self.ask_gdb(
            "tbreak begin", "continue",
            "watch *(int*)&DATA", "continue", "print/x $pc", "delete",
            "rwatch *(int*)&DATA", "continue", "print/x $pc", "delete",
            "awatch *(int*)&DATA", "continue", "print/x $pc", "continue", "print/x $pc", "delete",
            "print *(int*)&COPY", "print *(int*)&NEIGHBOUR", "kill")
        for said in ("Old value = 0\nNew value = 7", "Hardware read watchpoint 3: *(int*)&DATA\n\nValue = 7",
                     "Old value = 7\nNew value = 8", "Hardware access (read/write) watchpoint 4: *(int*)&DATA\n\nValue = 8"):
            self.assertIn(said, text)
        self.assertEqual(values, [*map(self.at, ("written", "read", "changed", "copied")), 8, 1], text)

    def test_watchpoint_with_a_condition(self):
        self.begin()
        text, values = self.ask_gdb("tbreak begin", "continue", "watch *(int*)&DATA if *(int*)&DATA == 8", "continue",
                                    "print/x $pc", "kill")
        self.assertEqual(values, [self.at("changed")], text)

    def test_stack_is_not_watched(self):
        running = self.begin()
        text, _ = self.ask_gdb("tbreak again", "continue", f"watch *(int*){self.at('STACK') - 0x80:#x}", "tbreak written",
                               "continue", "kill")
        self.assertIn("Could not insert hardware watchpoint 2", text)
        self.assertIn("cannot be watched: a stack is in the same page", running.process.stderr.read().decode())

    def test_steps(self):
        self.begin()
        again, line, end = map(self.at, ("again", "line", "line_end"))
        text, values = self.ask_gdb(
            "tbreak again", "continue", "stepi", "print $ebx", "stepi 2", "print/x $pc", "stepi 3", "print $ebx",
            "print/x $pc", "tbreak line", "continue", *asked("next"), "print/x $pc", "print $ecx",
            "tbreak line", "jump copied", "print/x $pc", "kill")
        self.assertEqual(values, [1, again, 2, again, end, 0, line], text)
        self.assertEqual(len(re.findall(r"Sending packet: \$vCont;r", text)), 1, "gdb was asked within the line")
        self.assertIn(f"$vCont;r{line:x},{end:x}:1", text)

    def test_steps_by_packets(self):
        self.begin()
        again, line, end = map(self.at, ("again", "line", "line_end"))
        client = Client(self, self.path)
        client.ask("?")

        def pc():
            return int.from_bytes(bytes.fromhex(client.ask("p10" if self.mode == "long" else "p8")), "little")

        self.assertEqual(client.ask(f"Z1,{again:x},1"), "OK")
        self.assertTrue(client.ask("vCont;c").startswith("T05"))
        self.assertEqual(client.ask(f"z1,{again:x},1"), "OK")
        # From an address that the packet names.
        self.assertTrue(client.ask(f"s{self.at('copied'):x}").startswith("T05"))
        self.assertEqual(pc(), line)
        # A breakpoint within the range ends it, and the next one goes on from there.
        self.assertEqual(client.ask(f"Z0,{line:x},1"), "OK")
        self.assertTrue(client.ask(f"vCont;r{line:x},{end:x}:1").startswith("T05"))
        self.assertEqual(pc(), line)
        self.assertEqual(client.ask(f"z0,{line:x},1"), "OK")
        self.assertTrue(client.ask(f"vCont;r{line:x},{end:x}:1").startswith("T05"))
        self.assertEqual(pc(), end)
        self.assertEqual(client.ask(f"Z0,{line:x},1"), "OK")
        self.assertTrue(client.ask(f"c{self.at('copied'):x}").startswith("T05"))
        self.assertEqual(pc(), line)

    def test_interrupts(self):
        self.begin()
        text, values = self.ask_gdb(
            "tbreak turns", "continue", "monitor irq 4", "stepi", "stepi", "print/x $pc",
            "tbreak interrupt", "continue", "print/x $pc", "tbreak turns", "continue", "print *(int*)&INTERRUPTS",
            "monitor nmi", "tbreak nmi", "continue", "print/x $pc", "tbreak turns", "continue", "print *(int*)&NMIS", "kill")
        # A step holds them off.
        self.assertEqual(values, [self.at("turns"), self.at("interrupt"), 1, self.at("nmi"), 1], text)


    def test_memory_by_packets(self):
        self.begin()
        client = Client(self, self.path)
        client.ask("?")
        page, ram = self.at("PAGE"), 4 << 20
        everything = bytes(range(256))
        escaped = b"".join(bytes([0x7D, byte ^ 0x20]) if byte in b"#$*}" else bytes([byte]) for byte in everything)

        def answer_to(payload):
            client.socket.sendall(b"$" + payload + b"#%02x" % (sum(payload) % 256))
            return client.answer()

        def binary(address, size):
            answer = answer_to(f"x{address:x},{size:x}".encode()).encode("latin-1")
            self.assertEqual(answer[:1], b"b", answer)
            return re.sub(rb"}(.)", lambda pair: bytes([pair[1][0] ^ 0x20]), answer[1:], flags=re.DOTALL)

        for physical in (0, 1):
            self.assertEqual(client.ask(f"Qqemu.PhyMemMode:{physical}"), "OK")
            self.assertEqual(client.ask("qqemu.PhyMemMode"), str(physical))
            at = page + 0xF80 + 0x1000 * physical  # across the end of a page
            self.assertEqual(answer_to(f"X{at:x},100:".encode() + escaped), "OK")
            self.assertEqual(client.ask(f"m{at:x},100"), everything.hex())
            self.assertEqual(binary(at, 0x100), everything)
            self.assertEqual(client.ask(f"M{at:x},4:7d232a24"), "OK")
            self.assertEqual(binary(at, 5), b"}#*$\x04")
            self.assertEqual(answer_to(f"X{at:x},0:".encode()), "OK")
            self.assertEqual(answer_to(f"X{at:x},2:x".encode()), "E16")  # fewer than it says
        self.assertEqual(client.ask("Mfffffff0,1:00")[:1], "E")
        self.assertEqual(binary(ram - 4, 8), bytes(4))
        self.assertEqual(client.ask(f"x{ram:x},8"), "E0e")
        self.assertIn(f'start="0x0" length="{ram:#x}"', client.ask("qXfer:memory-map:read::0,1000"))

    def test_virtual_and_physical_addresses(self):
        """Tables that the debugger makes: each address of the data is there once more, at an offset."""
        virtual, physical = "maintenance packet Qqemu.PhyMemMode:0", "maintenance packet Qqemu.PhyMemMode:1"
        data = self.at("DATA")
        shapes = {  # offset, what makes the tables
            "long": [(1 << 39, ["set var *(long*)($cr3 + 8) = *(long*)$cr3"])],
            "protected": [
                (4 << 20, ["set var *(int*)0x10000 = 0x83", "set var *(int*)0x10004 = 0x83", "set $cr4 = 0x10ull",
                           "set $cr3 = 0x10000", "set $cr0 = 0x80000011ull"]),  # two pages of 4 MiB
                (2 << 20, ["set $cr0 = 0x11ull", "set var *(long long*)0x11000 = 0x12001",
                           "set var *(long long*)0x12000 = 0x83", "set var *(long long*)0x12008 = 0x83", "set $cr4 = 0x20ull",
                           "set $cr3 = 0x11000", "set $cr0 = 0x80000011ull"]),  # PAE, two pages of 2 MiB
            ],
            "real": [(0, [])],
        }[self.mode]
        for offset, makes in shapes:
            self.path = self.folder / f"gdb{offset:x}"
            self.begin()
            text, values = self.ask_gdb(
                physical, *makes, f"set var *(int*){data:#x} = 0x1234", virtual, f"print/x *(int*){data + offset:#x}",
                f"set var *(int*){data + offset:#x} = 0x5678", f"monitor xlate {data + offset:#x}", physical,
                f"print/x *(int*){data:#x}", f"print/x *(int*){data + (offset or 1 << 30):#x}", "kill")
            if "leaves bits 0x80000000 of cr0" in text:  # a KVM that has no paging there says so
                self.assertEqual(self.mode, "protected")
                continue
            self.assertEqual(values, [0x1234, 0x5678], text)
            self.assertIn(f"GPA {data:#x}, RAM", text)
            self.assertIn("Cannot access memory", text)


class FourCpus(Mode):
    cpus = 4

    def turns(self, cpu):
        return f"*(int*){self.at('TURNS') + 4 * cpu:#x}"

    def all_run(self):
        """Until each of the others is in its loop."""
        return ["tbreak other_turns if *(int*)&STARTS == 3", "continue"]

    def test_breakpoints_and_their_conditions(self):
        self.begin()
        text, values = self.ask_gdb(
            *self.all_run(),
            "break other_turns if $ebp == 3", "continue", "print $_thread", "print/x $pc", "delete",
            "hbreak other_turns if $ebp == 2", "continue", "print $_thread", "print/x $pc", "delete",
            "break other_turns thread 2", "continue", "print $_thread", "print/x $ebp", "delete",
            "tbreak turns", "continue", "print $_thread", "print/x $pc", "kill")
        loop = self.at("other_turns")
        self.assertEqual(values, [4, loop, 3, loop, 2, 1, 1, self.at("turns")], text)

    def test_watchpoints(self):
        self.begin()
        text, values = self.ask_gdb(
            *self.all_run(), f"watch {self.turns(2)}", "continue", "print $_thread",
            "print/x $pc - (long)&other_turns > 0", "delete", f"awatch {self.turns(1)}", "continue", "print $_thread", "delete",
            f"watch {self.turns(0)}", "continue", "print $_thread", "kill")
        self.assertEqual(values, [3, 1, 2, 1], text)

    def test_scheduler_locking(self):
        self.begin()
        all_turns = [f"print {self.turns(cpu)}" for cpu in range(4)]
        text, values = self.ask_gdb(
            *self.all_run(), "thread 3", "set scheduler-locking on", "tbreak other_turns", "continue", *all_turns,
            "stepi 30", "print/x $pc", *all_turns, "tbreak other_turns", "continue", "print $_thread", *all_turns,
            *asked("stepi"), "set scheduler-locking off", *asked("stepi"), "kill")
        loop = self.at("other_turns")
        before, stepped, went_on = values[:4], values[5:9], values[10:14]
        self.assertEqual(stepped, [before[0], before[1], before[2] + 10, before[3]], text)
        self.assertEqual(went_on, [before[0], before[1], before[2] + 11, before[3]], text)
        self.assertEqual((values[4], values[9]), (loop, 3), text)
        self.assertEqual(re.findall(r"Sending packet: \$(vCont;.*)#", text), ["vCont;s:3", "vCont;s:3;c"], text)

    def test_range_steps(self):
        self.begin()
        client = Client(self, self.path)
        client.ask("?")
        loop, jump, turns = map(self.at, ("other_turns", "other_jump", "turns"))
        pc, bp = ("p10", 6) if self.mode == "long" else ("p8", 5)

        def counts():
            words = bytes.fromhex(client.ask(f"m{self.at('TURNS'):x},10"))
            return [int.from_bytes(words[i:i + 4], "little") for i in range(0, 16, 4)]

        def stops_at_loop(actions, *condition):
            """Where a CPU meets a breakpoint under a condition (gdb's agent expressions), which is gone then."""
            code = b"".join(condition).hex()
            end = f";X{len(code) // 2 + 1:x},{code}27" if condition else ""
            self.assertEqual(client.ask(f"Z1,{loop:x},1{end}"), "OK")
            stop = client.ask(actions)
            self.assertEqual(client.ask(f"z1,{loop:x},1"), "OK")
            self.assertEqual(int.from_bytes(bytes.fromhex(client.ask(pc)), "little"), loop)
            return stop

        def constant(number):
            return b"\x24" + number.to_bytes(4, "big")

        def variable(symbol, cpu=0):
            return constant(self.at(symbol) + 4 * cpu) + b"\x19"

        less, equal, both, register = b"\x15", b"\x13", b"\x0f", b"\x26\x00"
        stops_at_loop("vCont;c", variable("STARTS"), constant(3), equal)
        self.assertIn("thread:3;", stops_at_loop("vCont;c:3"))
        # That CPU alone, to the end of the range.
        before = counts()
        self.assertIn("thread:3;", client.ask(f"vCont;r{loop:x},{jump:x}:3"))
        self.assertEqual(int.from_bytes(bytes.fromhex(client.ask(pc)), "little"), jump)
        self.assertEqual(counts(), [before[0], before[1], before[2] + 1, before[3]])
        # It never leaves this one: a breakpoint that matters ends the step, or Ctrl-C.
        alone = f"vCont;r{loop:x},{jump + 2:x}:3"
        self.assertIn("thread:3;", stops_at_loop(alone, constant(before[2] + 5), variable("TURNS", 2), less))
        self.assertEqual(counts(), [before[0], before[1], before[2] + 6, before[3]])
        client.send(alone)
        client.socket.sendall(b"\x03")
        stop = client.answer()
        self.assertTrue(stop.startswith("T02"))
        self.assertIn("thread:3;", stop)
        after = counts()
        self.assertEqual([after[0], after[1], after[3]], [before[0], before[1], before[3]])
        # The others run meanwhile.
        self.assertIn("thread:3;", stops_at_loop(alone + ";c", constant(before[0] + 10), variable("TURNS"), less,
                                                 register + bytes([bp]), constant(2), equal, both))
        self.assertGreater(counts()[0], before[0] + 10)
        # One of them meets a breakpoint.
        self.assertEqual(client.ask(f"Z1,{turns:x},1"), "OK")
        self.assertIn("thread:1;", client.ask(alone + ";c"))


def cells():
    for mode in ("real", "protected", "long"):
        for base in (OneCpu, FourCpus):
            name = f"{mode.capitalize()}Mode{base.__name__}"
            yield name, needs_kvm(needs_gdb(type(name, (base,), {"mode": mode})))


globals().update(cells())


def load_tests(loader, _tests, _pattern):
    """The classes that are for one mode each; those of gdb_test are run there."""
    suite = unittest.TestSuite()
    for name, _ in cells():
        suite.addTests(loader.loadTestsFromTestCase(globals()[name]))
    return suite


if __name__ == "__main__":
    GUESTS = dict(zip(("real", "protected", "long"), sys.argv[2:5]))
    del sys.argv[2:5]
    vmm_process.main()
