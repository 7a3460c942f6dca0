"""Core files, the flight recorder, statistics and crash reports from outside.

    observe_test.py PATH-OF-VMM
"""
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
import xml.etree.ElementTree

import vmm_process
from vmm_process import Guest, OnTerminal, Running, eventually, needs_kvm, read_until, vmm

START = 0x1000  # where flat guests are put
PAGE = 0x1000


def note(owner, text):
    """A note as a Linux kernel keeps it in a page of its own."""
    name = owner + b"\0"
    name += b"\0" * (-len(name) % 4)
    return (len(owner) + 1).to_bytes(4, "little") + len(text).to_bytes(4, "little") + bytes(4) + name + text


def triple_fault():
    # lidt [rip + empty], whose limit is zero; ud2
    return Guest().say("!").raw([0x0F, 0x01, 0x1D, 0x02, 0, 0, 0]).raw([0x0F, 0x0B]).raw(bytes(10))


def processor_time(pid):
    """What all threads of a process have used, in nanoseconds."""
    threads = pathlib.Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads)


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.path = self.folder / "control"

    def start(self, guest, *options, **streams):
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
        arguments = guest.arguments(self)
        arguments[arguments.index("flat")] = "flat,mode=long"
        running = Running(self, [*arguments, "--control", self.path, *options], **streams)
        self.wait_for_machine()
        return running

    def wait_for_machine(self):
        self.assertTrue(eventually(self.path.exists))
        self.assertTrue(eventually(lambda: "starting" not in self.ask("ctl", self.path, "status")))

    def ask(self, *words):
        code, out, err = vmm(*words)
        self.assertEqual((code, err), (0, ""), words)
        return out


def run_tool(*words):
    done = subprocess.run(words, capture_output=True, text=True, timeout=vmm_process.PATIENCE)
    return done.stdout + done.stderr


@needs_kvm
class Core(Folder):
    def guest_with_vmcoreinfo(self):
        guest = Guest().raw([0x48, 0xB8, *bytes.fromhex("efbeaddeefbeadde")])  # mov rax, 0xdeadbeefdeadbeef
        guest.say("on").hang()
        guest.code = guest.code.ljust(PAGE, b"\0")
        return guest.raw(note(b"VMCOREINFO", b"OSRELEASE=6.1.0-test\nPAGESIZE=4096\n"))

    def write(self, *options):
        running = self.start(self.guest_with_vmcoreinfo(), *options)
        self.assertEqual(read_until(running.process.stdout.fileno(), "on"), "on")
        core = self.folder / "core"
        self.assertEqual(self.ask("core", self.path, core), "")
        return running, core

    def test_file_is_small_and_nobody_elses(self):
        running, core = self.write("--mem", "64M")
        status = core.stat()
        self.assertGreater(status.st_size, 64 << 20)
        self.assertLess(status.st_blocks * 512, 4 << 20)
        self.assertEqual(status.st_mode & 0o777, 0o600)
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), ["control", "core"])
        self.assertIn('"running"', self.ask("ctl", "--json", self.path, "status"))  # it goes on
        running.signal(signal.SIGTERM)
        self.assertEqual(running.wait(), 130)

    @unittest.skipUnless(shutil.which("readelf"), "needs readelf")
    def test_readelf_finds_it_sound(self):
        _, core = self.write("--cpus", "2")
        text = run_tool("readelf", "-hlnW", str(core))
        self.assertNotIn("Warning", text)
        self.assertNotIn("Error", text)
        self.assertIn("CORE (Core file)", text)
        self.assertEqual(text.count("NT_PRSTATUS"), 2)
        self.assertEqual(text.count("  QEMU "), 2)
        self.assertIn("VMCOREINFO", text)
        self.assertIn(b"OSRELEASE=6.1.0-test\n", core.read_bytes()[:3 * PAGE])

    @unittest.skipUnless(shutil.which("gdb"), "needs gdb")
    def test_gdb_reads_registers_and_memory(self):
        _, core = self.write("--cpus", "2")
        text = run_tool("gdb", "-batch", "-nx", "-ex", "set architecture i386:x86-64", "-ex", f"core-file {core}",
                        "-ex", "info threads", "-ex", "info registers", "-ex", f"x/2xb {START}", "-ex",
                        "print/x *(unsigned short *)$rip")
        self.assertIn("= 0xfeeb", text)  # jmp $
        self.assertRegex(text, r"rax +0xdeadbeefdeadbe")  # say() changes AL
        self.assertRegex(text, r"rip +0x10")
        self.assertIn("0x48\t0xb8", text)
        self.assertIn("LWP 2", text)

    def test_full_disk_leaves_nothing(self):
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))  # noqa: E731
        running = self.start(Guest().hang(), preexec_fn=limit)
        core = self.folder / "core"
        core.write_text("former")
        code, out, err = vmm("core", self.path, core)
        self.assertEqual((code, out), (1, ""))
        self.assertIn(str(core), err)
        self.assertEqual(core.read_text(), "former")
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), ["control", "core"])
        self.assertIsNone(running.process.poll())

    def test_disk_that_fills_up_midway_keeps_nothing(self):
        disk = self.folder / "disk"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "vmm-test", disk], capture_output=True).returncode != 0:
            self.skipTest("a small disk cannot be mounted")
        self.addCleanup(subprocess.run, ["umount", disk])
        guest = Guest().hang()
        guest.code = guest.code.ljust(448 << 10, b"\x90")  # more than the disk has room for
        running = self.start(guest)
        code, out, err = vmm("core", self.path, disk / "core")
        self.assertEqual((code, out), (1, ""))
        self.assertIn("No space left", err)
        self.assertEqual(list(disk.iterdir()), [])
        self.assertEqual(os.statvfs(disk).f_bavail, os.statvfs(disk).f_blocks)
        self.assertIsNone(running.process.poll())
        self.ask("core", self.path, self.folder / "core")

    def test_paused_guest_and_one_that_goes_on_from_a_snapshot(self):
        running, _ = self.write()
        self.ask("ctl", self.path, "pause")
        self.ask("core", self.path, self.folder / "paused")
        self.assertIn("paused", self.ask("ctl", self.path, "status"))
        self.ask("snapshot", self.path, self.folder / "snap")
        self.ask("ctl", self.path, "quit")
        running.wait()
        self.path = self.folder / "control2"
        Running(self, ["restore", self.folder / "snap", "--control", self.path], stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.wait_for_machine()
        self.ask("core", self.path, self.folder / "again")
        # What nobody has touched since comes from the snapshot's file.
        self.assertIn(b"OSRELEASE=6.1.0-test\n", (self.folder / "again").read_bytes()[3 * PAGE:])

    def test_memory_that_others_may_have_is_written_while_the_guest_stands(self):
        running, core = self.write("--mem-backing", "memfd", "--verbose")
        self.assertIn(b"OSRELEASE=6.1.0-test\n", core.read_bytes()[:3 * PAGE])
        self.assertIn('"running"', self.ask("ctl", "--json", self.path, "status"))
        self.ask("ctl", self.path, "quit")
        self.assertIn("cannot be copied on write", running.process.stderr.read().decode())

    def test_nothing_is_left_of_the_process_that_held_memory(self):
        running, _ = self.write()
        children = pathlib.Path(f"/proc/{running.process.pid}/task").glob("*/children")
        self.assertEqual([text for child in children if (text := child.read_text())], [])

    def test_crash_is_written(self):
        core = self.folder / "crashed"
        code, _, err = vmm(*triple_fault().arguments(self), "--on-crash", f"core={core}")
        self.assertEqual(code, 18, err)
        self.assertIn(f"the guest is in the core file {core}\n", err)
        self.assertEqual(core.read_bytes()[:4], b"\x7fELF")

    def test_orderly_end_is_not(self):
        core = self.folder / "crashed"
        code, _, err = vmm(*Guest().exit(3).arguments(self), "--on-crash", f"core={core}")
        self.assertEqual(code, 7, err)
        self.assertFalse(core.exists())


@needs_kvm
class CrashReport(unittest.TestCase):
    def test_has_cause_code_registers_walks_and_last_exits(self):
        code, out, err = vmm(*triple_fault().arguments(self), "--symbols", self.symbols())
        self.assertEqual((code, out), (18, "!"), err)
        self.assertIn("guest ended in a triple fault", err)
        self.assertRegex(err, r"\nRIP 0{12}100e")
        self.assertIn("\ncode <start+0xe>:\n", err)
        self.assertRegex(err, r"\n     0x1007: lidt [^\n]+\n  => 0x100e: ud2\n")
        self.assertIn("\nrsp 0x", err)
        self.assertIn("last exits of vCPU 0, the newest last:\n", err)
        self.assertRegex(err, r"#\d+ pio write 0x3f8 width 1 value 0x21 rip 0x100\w <start\+0x\w>\n")
        self.assertRegex(err, r"#\d+ shutdown rip 0x100e")

    def symbols(self):
        file = tempfile.NamedTemporaryFile(suffix=".map")
        self.addCleanup(file.close)
        file.write(b"0000000000001000 T start\n")
        file.flush()
        return file.name

    def test_backtrace_by_frame_pointers(self):
        # Two frames at 0x8000 and 0x8020, as functions that begin with push rbp; mov rbp, rsp have them.
        guest = Guest().raw([0x48, 0xC7, 0xC5, 0x00, 0x80, 0, 0])  # mov rbp, 0x8000
        for address, value in ((0x8000, 0x8020), (0x8008, 0x1234), (0x8020, 0), (0x8028, 0x5678)):
            # mov qword [address], value
            guest.raw([0x48, 0xC7, 0x04, 0x25, *address.to_bytes(4, "little"), *value.to_bytes(4, "little")])
        guest.raw([0x48, 0xC7, 0xC4, 0x00, 0x70, 0, 0])  # mov rsp, 0x7000
        guest.raw(triple_fault().code)
        _, _, err = vmm(*guest.arguments(self))
        self.assertIn("called from, by frame pointers:\n  0x1234\n  0x5678\n", err)

    def test_halt_is_told_in_one_line(self):
        _, _, err = vmm(*Guest().halt().arguments(self))
        self.assertEqual(err.count("\n"), 1, err)

    def test_without_recorder(self):
        _, _, err = vmm(*triple_fault().arguments(self), "--record-exits", "0")
        self.assertNotIn("last exits", err)
        self.assertIn("=> ", err)


@needs_kvm
class Trace(Folder):
    def talking(self, *options):
        running = self.start(Guest().say("ab").out(0x80, 7).say("c").hang(), *options)
        self.assertEqual(read_until(running.process.stdout.fileno(), "abc"), "abc")
        return running

    def test_text(self):
        self.talking()
        lines = [line for line in self.ask("trace", self.path).splitlines() if " pio " in line]
        self.assertRegex(lines[0], r"^ +-?\d+\.\d{6} vcpu0 #\d+ pio write 0x3f8 width 1 value 0x61 rip 0x\w+ \d+\.\d us$")
        self.assertRegex(lines[2], "pio write 0x80 width 1 value 0x7 ")

    def test_file_of_the_last_ones(self):
        self.start(Guest().repeat("x", 500).say("!").hang(), "--record-exits", "256")
        file = self.folder / "trace"
        self.assertTrue(eventually(lambda: "value 0x21" in self.ask("trace", self.path)))
        self.assertEqual(self.ask("trace", self.path, "-o", file), "")
        lines = [line for line in file.read_text().splitlines() if "#" in line]
        self.assertLessEqual(len(lines), 256)
        self.assertNotIn(" #0 ", lines[0])

    def test_chrome(self):
        self.talking("--cpus", "2")
        file = self.folder / "trace.json"
        self.ask("trace", self.path, "--chrome", "-o", file)
        events = json.loads(file.read_text())["traceEvents"]
        for event in events:
            self.assertIn(event["ph"], ("X", "M", "i", "b", "e"))
            for key in ("ts", "pid", "tid"):
                self.assertIsInstance(event[key], (int, float))
            if event["ph"] == "X":
                self.assertGreaterEqual(event["dur"], 0)
        self.assertLessEqual({0, 1}, {event["tid"] for event in events})
        self.assertIn("pio write 0x80", [event["name"] for event in events])

    def test_interrupts_are_among_exits(self):
        # The UART asks for the next byte as soon as it may; reading the reason takes that back.
        running = self.start(Guest().out(0x3F9, 2).say_port(0x3FA).out(0x3F9, 0).say("!").hang())
        self.assertIn("!", read_until(running.process.stdout.fileno(), "!"))
        lines = [line[13:] for line in self.ask("trace", self.path).splitlines()]
        names = [" ".join(line.split(" ")[2:5]) if "#" in line else line for line in lines]
        written = names.index("pio write 0x3f9")
        self.assertIn("irq gsi 4 raised", names[max(0, written - 1):written + 2])
        self.assertLess(names.index("irq gsi 4 raised"), names.index("irq gsi 4 lowered"))
        events = json.loads(self.ask("trace", self.path, "--chrome"))["traceEvents"]
        self.assertIn("irq gsi 4 raised", [event["name"] for event in events if event["ph"] == "i"])

    def test_reads_show_what_the_guest_got(self):
        running = self.start(Guest().say_port(0x3FD).say(".").hang())
        read_until(running.process.stdout.fileno(), ".")
        self.assertRegex(self.ask("trace", self.path), "pio read 0x3fd width 1 value 0x60 ")

    def test_file_that_cannot_be(self):
        self.start(Guest().hang())
        code, _, err = vmm("trace", self.path, "-o", "/nowhere/at/all")
        self.assertEqual(code, 1)
        self.assertIn("/nowhere/at/all", err)


@needs_kvm
class Stat(Folder):
    def test_counts(self):
        running = self.start(Guest().repeat("x", 50).out(0x80, 1).say("!").hang(), "--cpus", "2")
        read_until(running.process.stdout.fileno(), "!")
        stat = json.loads(self.ask("stat", "--json", self.path))
        places = {(one["kind"], one["write"], one["address"]): one for one in stat["accesses"]}
        self.assertEqual(places["pio", True, "0x3f8"]["count"], 51)
        self.assertTrue(places["pio", True, "0x3f8"]["device"])
        self.assertEqual(places["pio", True, "0x80"]["count"], 1)
        self.assertEqual(len(stat["vcpus"]), 2)
        self.assertGreaterEqual(stat["vcpus"][0]["exits"], 100)
        self.assertTrue(eventually(
            lambda: json.loads(self.ask("stat", "--json", self.path))["vcpus"][0]["cpu_time_ns"] > 10_000_000))
        text = self.ask("stat", self.path)
        self.assertRegex(text, r"pio write 0x3f8 +51 ")
        self.assertRegex(self.ask("top", self.path), r"pio write 0x3f8 +51 ")  # no terminal: one table

    def test_top_draws_until_q(self):
        self.start(Guest().say("!").hang())
        top = OnTerminal(self, ["top", self.path])
        self.assertIn("vmm top", top.read_until("exits by kind"))
        self.assertIn("/s", top.read_until("/s"))  # the second picture has rates
        top.type("q")
        self.assertEqual(top.wait(), 0)
        self.assertTrue(top.is_restored())

    def test_top_ends_with_the_guest(self):
        running = self.start(Guest().hang())
        top = OnTerminal(self, ["top", self.path])
        top.read_until("exits by kind")
        running.signal(signal.SIGTERM)
        running.wait()
        self.assertEqual(top.wait(), 1)
        self.assertTrue(top.is_restored())


@needs_kvm
class Profile(Folder):
    def busy(self):
        """Loops in a function of its own, at 0x1100, that was called with a frame."""
        guest = Guest().raw([0x48, 0xC7, 0xC4, 0x00, 0x80, 0, 0])  # mov rsp, 0x8000
        guest.raw([0x31, 0xED])  # xor ebp, ebp
        guest.raw([0x6A, 0x00])  # push 0: nobody called this
        guest.raw([0x55, 0x48, 0x89, 0xE5])  # push rbp; mov rbp, rsp
        guest.say("!")
        guest.raw([0xE8, *(0x100 - len(guest.code) - 5).to_bytes(4, "little")])  # call 0x1100
        guest.code = guest.code.ljust(0x100, b"\x90")
        return guest.raw([0x55, 0x48, 0x89, 0xE5]).hang()  # push rbp; mov rbp, rsp

    def profile(self, *options):
        symbols = self.folder / "map"
        symbols.write_text(f"{START:016x} T start\n{START + 0x100:016x} T spin\n")
        running = self.start(self.busy(), "--symbols", symbols)
        read_until(running.process.stdout.fileno(), "!")
        return self.ask("profile", self.path, "--seconds", "0.5", "--hz", "50", *options)

    def test_folded_stacks(self):
        stacks = dict(line.rsplit(" ", 1) for line in self.profile().splitlines())
        self.assertEqual(list(stacks), ["vCPU_0;start;spin"])
        self.assertGreater(int(stacks["vCPU_0;start;spin"]), 0)

    def test_file_that_cannot_be_is_told_before_the_guest_is_sampled(self):
        # Nobody is asked: there is no guest.
        code, _, err = vmm("profile", self.path, "--seconds", "3600", "-o", "/nowhere/graph.svg")
        self.assertEqual(code, 1)
        self.assertIn("/nowhere/graph.svg", err)

    def sample_until(self, end):
        """What is sampled of a guest for an hour, that `end` ends."""
        running = self.start(self.busy())
        read_until(running.process.stdout.fileno(), "!")
        profile = Running(self, ["profile", self.path, "--seconds", "3600", "--hz", "1000"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)
        seen = self.kicks()
        self.assertTrue(eventually(lambda: self.kicks() > seen + 5))  # a CPU that is sampled leaves the guest
        end(running, profile)
        out, err = profile.process.communicate(timeout=vmm_process.PATIENCE)
        self.assertIn("vCPU_0;", out.decode())
        return profile.process.returncode, err.decode()

    def kicks(self):
        return json.loads(self.ask("stat", self.path, "--json"))["kicks"]

    def test_end_of_the_guest_keeps_what_was_sampled(self):
        code, err = self.sample_until(lambda running, profile: running.signal(signal.SIGTERM))
        self.assertEqual(code, 0)
        self.assertIn("ended early", err)

    def test_ctrl_c_keeps_what_was_sampled(self):
        self.assertEqual(self.sample_until(lambda running, profile: profile.signal(signal.SIGINT)), (0, ""))

    def test_flame_graph(self):
        file = self.folder / "graph.svg"
        self.assertEqual(self.profile("-o", file), "")
        root = xml.etree.ElementTree.parse(file).getroot()
        self.assertEqual(root.tag, "{http://www.w3.org/2000/svg}svg")
        titles = [title.text for title in root.iter("{http://www.w3.org/2000/svg}title")]
        self.assertEqual([title.split(" (")[0] for title in titles], ["vCPU 0", "start", "spin"])


@needs_kvm
class IdleGuest(Folder):
    def test_costs_no_processor_time(self):
        for irqchip in ("kernel", "split", "user"):
            with self.subTest(irqchip=irqchip):
                # again: sti; hlt; jmp again
                running = self.start(Guest().say("!").raw([0xFB, 0xF4, 0xEB, 0xFC]), "--irqchip", irqchip)
                self.assertEqual(read_until(running.process.stdout.fileno(), "!"), "!")
                time.sleep(0.5)  # what starting has left to do
                before = processor_time(running.process.pid)
                time.sleep(2)
                self.assertLess(processor_time(running.process.pid) - before, 0.02 * 2e9)
                running.close()
                self.path.unlink(missing_ok=True)


class Usage(unittest.TestCase):
    def test_nobody_listens(self):
        for command in ("stat", "top", "trace", "profile"):
            code, out, err = vmm(command, "/nowhere")
            self.assertEqual((code, out), (1, ""), command)
            self.assertRegex(err, f"^vmm {'stat' if command == 'top' else command}: .*/nowhere")

    def test_what_cannot_be(self):
        for words in (("stat",), ("trace", "/x", "--chrom"), ("core", "/x"), ("run", "--on-crash", "burn")):
            code, _, err = vmm(*words)
            self.assertEqual(code, 2, err)


if __name__ == "__main__":
    vmm_process.main()
