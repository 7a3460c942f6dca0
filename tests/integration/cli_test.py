"""The command line from outside: statuses, messages, streams.

    cli_test.py PATH-OF-VMM
"""
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import time
import unittest

import vmm_process
from vmm_process import Guest, Running, eventually, needs_kvm, read_until, vmm


class Usage(unittest.TestCase):
    """What is wrong is said once, in one line each, with the option's name."""

    def expect(self, arguments, status, *texts):
        code, out, err = vmm(*arguments)
        self.assertEqual(code, status, err)
        for text in texts:
            self.assertIn(text, err)
        self.assertEqual(out, "")

    def test_bad_values(self):
        self.expect(["run", "--mem", "12Q"], 2, "vmm run: --mem: '12Q' is not a size")
        self.expect(["run", "--cpus", "many"], 2, "vmm run: --cpus: 'many' is not a number")
        self.expect(["run", "--mem", "1M", "--serial", "x"], 2, "--serial: 'x'")

    def test_all_problems_at_once(self):
        self.expect(["run", "--mem", "x", "--cpu", "z", "--nope"], 2, "--mem:", "--cpu:", "--nope:")

    def test_unknown_command(self):
        self.expect(["rum"], 2, "vmm: rum: there is no such command")

    def test_nothing_at_all(self):
        self.expect([], 2, "Examples:")

    def test_help_and_version(self):
        for arguments in (["--help"], ["run", "--help"], ["help", "doctor"], ["inspect", "-h"]):
            code, out, err = vmm(*arguments)
            self.assertEqual((code, err), (0, ""))
            self.assertIn("Examples:", out)
        code, out, _ = vmm("--version")
        self.assertEqual(code, 0)
        self.assertRegex(out, r"^vmm \d+\.\d+\.\d+\n$")

    def test_config_file(self):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            file.write('{"memory": "1G", "cpus": "x"}')
            file.flush()
            self.expect(
                ["run", "--config", file.name],
                2,
                f"{file.name}: memory: there is no such option",
                f"{file.name}: cpus: 'x' is not a number",
            )
            file.seek(0)
            file.truncate()
            file.write('{"mem": ')
            file.flush()
            self.expect(["run", "--config", file.name], 2, f"{file.name}: line 1, column")


class Inspect(unittest.TestCase):
    def test_what_is_no_kernel(self):
        code, out, err = vmm("inspect", __file__)
        self.assertEqual((code, out), (6, ""))
        self.assertIn(__file__, err)
        code, out, _ = vmm("inspect", "--json", __file__)
        self.assertEqual(code, 6)
        self.assertIn("not a kernel image", json.loads(out)["error"])

    def test_missing_file(self):
        code, _, err = vmm("inspect", "/nonexistent/bzImage")
        self.assertEqual(code, 6)
        self.assertIn("/nonexistent/bzImage", err)


class Doctor(unittest.TestCase):
    def test_json_and_text_agree(self):
        code, out, _ = vmm("doctor", "--json")
        report = json.loads(out)
        self.assertEqual(code, 0 if report["usable"] else 4)
        self.assertIn("/dev/kvm", vmm("doctor")[1])

    @needs_kvm
    def test_finds_what_there_is(self):
        report = json.loads(vmm("doctor", "--json")[1])
        self.assertTrue(report["usable"], report["problem"])
        self.assertGreater(report["capabilities"]["KVM_CAP_NR_MEMSLOTS"], 1)
        self.assertEqual(
            [quirk["name"] for quirk in report["quirks"]],
            ["complete-instructions", "syscall-fixup", "hide-hypercalls", "unpack-initrd", "interpret-kernel"],
        )
        self.assertGreater(report["pio_exit_ns"], 0)


@needs_kvm
class Ends(unittest.TestCase):
    """Each way to end has its status and its line."""

    def expect(self, guest, status, line, *options):
        code, out, err = vmm(*guest.arguments(self), *options)
        self.assertEqual(code, status, err)
        self.assertRegex(err, rf"(?m)^vmm: {line}")
        return out, err

    def test_debug_exit(self):
        out, _ = self.expect(Guest().say("hi").exit(0x10), 33, "guest ended through the debug-exit")
        self.assertEqual(out, "hi")

    def test_debug_exit_elsewhere(self):
        self.expect(Guest().out(0xF8, 1), 3, "guest ended through", "--debug-exit", "0xf8")

    def test_triple_fault(self):
        # ud2 without an IDT
        _, err = self.expect(Guest().raw([0x0F, 0x0B]), 18, "guest ended in a triple fault")
        self.assertIn("rip", err)

    def test_halted_for_good(self):
        self.expect(Guest().halt(), 16, "guest halted for good")

    def test_reset(self):
        self.expect(Guest().say("x").reset(), 10, "guest reset", "--no-reboot")

    def test_silent_reset_loop(self):
        self.expect(Guest().reset(), 12, "guest reset 11 times in a row")

    def test_reset_starts_again(self):
        out, _ = self.expect(Guest().say("x").reset(), 26, "guest ended by --timeout", "--timeout", "2")
        self.assertGreater(len(out), 1)
        self.assertEqual(set(out), {"x"})

    def test_timeout(self):
        self.expect(Guest().hang(), 26, "guest ended by --timeout", "--timeout", "0.2")

    def test_quiet(self):
        code, _, err = vmm(*Guest().exit(1).arguments(self), "-q")
        self.assertEqual((code, err), (3, ""))

    def test_kernel_that_is_none(self):
        code, _, err = vmm("run", "--kernel", __file__)
        self.assertEqual(code, 6)
        self.assertIn(__file__, err)

    def test_kernel_that_is_missing(self):
        for how in ("auto", "flat"):
            code, _, err = vmm("run", "--kernel", "/nonexistent/k", "--boot", how)
            self.assertEqual(code, 6, err)
            self.assertIn("/nonexistent/k", err)

    def test_flat_image_larger_than_memory(self):
        code, _, err = vmm("run", "--kernel", "/dev/zero", "--boot", "flat", "--mem", "2M")
        self.assertEqual(code, 6)
        self.assertIn("larger than the guest's memory of 2 MiB", err)

    def test_signals(self):
        for number, name in ((signal.SIGINT, "SIGINT"), (signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGHUP")):
            with self.subTest(name):
                arguments = Guest().say("!").hang().arguments(self)
                running = Running(self, arguments, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                read_until(running.process.stdout.fileno(), "!")
                running.signal(number)
                self.assertEqual(running.wait(), 130)
                self.assertIn(f"vmm: interrupted: {name}", running.process.stderr.read().decode())

    def test_signal_sent_twice_at_once_is_one(self):
        # timeout(1) signals its child, then the child's process group.
        running = Running(self, Guest().say("!").hang().arguments(self), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        read_until(running.process.stdout.fileno(), "!")
        running.signal(signal.SIGTERM)
        running.signal(signal.SIGHUP)
        self.assertEqual(running.wait(), 130)
        self.assertNotIn("at once", running.process.stderr.read().decode())

    def test_ignored_hangup_stays_ignored(self):
        arguments = Guest().say("!").hang().arguments(self) + ["--timeout", "1"]
        running = Running(self, arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL,
                          preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        read_until(running.process.stdout.fileno(), "!")
        running.signal(signal.SIGHUP)
        self.assertEqual(running.wait(), 26)


@needs_kvm
class BuiltIn(unittest.TestCase):
    def test_powers_off(self):
        code, out, err = vmm("run", "--cmdline", "off", "--mem", "16M")
        self.assertEqual((code, err), (0, "vmm: guest powered off\n"))
        self.assertIn("built-in guest", out)

    def test_takes_commands_from_a_pipe(self):
        code, out, _ = vmm("run", "--mem", "16M", stdin=b"cr\noff\n")
        self.assertEqual(code, 0)
        self.assertRegex(out, "(?i)cr0")

    def test_reboot_starts_it_again(self):
        running = Running(self, ["run", "--mem", "16M"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for command in (b"reboot\n", b"off\n"):
            self.assertIn("built-in guest", read_until(running.process.stdout.fileno(), "vmm> "))
            os.write(running.process.stdin.fileno(), command)
        self.assertEqual(running.wait(), 0)

    def test_config_file_gives_way_to_the_command_line(self):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump({"mem": "1M", "cmdline": "off", "quiet": True}, file)
            file.flush()
            code, _, err = vmm("run", "--config", file.name, "--mem", "16M")
        self.assertEqual((code, err), (0, ""))


@needs_kvm
class Streams(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def test_serial_file(self):
        path = self.folder / "log"
        code, out, _ = vmm(*Guest().say("to a file").exit(1).arguments(self), "--serial", f"file:{path}")
        self.assertEqual((code, out), (3, ""))
        self.assertEqual(path.read_text(), "to a file")

    def test_serial_null(self):
        code, out, _ = vmm(*Guest().say("away").exit(1).arguments(self), "--serial", "null")
        self.assertEqual((code, out), (3, ""))

    def test_serial_socket(self):
        path = self.folder / "sock"
        running = Running(self, Guest().say("hello").echo().arguments(self) + ["--serial", f"unix:{path}"],
                          stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.assertTrue(eventually(path.exists))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            self.assertEqual(read_until(client.fileno(), "hello"), "hello")
            client.sendall(b"ping")
            self.assertEqual(read_until(client.fileno(), "ping"), "ping")
        running.signal(signal.SIGTERM)
        self.assertEqual(running.wait(), 130)
        self.assertFalse(path.exists())

    def test_serial_pty(self):
        running = Running(self, Guest().echo().arguments(self) + ["--serial", "pty"],
                          stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        line = running.process.stderr.readline().decode()
        path = re.fullmatch(r"vmm: serial port on (/dev/pts/\d+)\n", line).group(1)
        peer = os.open(path, os.O_RDWR | os.O_NOCTTY)
        self.addCleanup(os.close, peer)
        os.write(peer, b"over the pty")
        self.assertEqual(read_until(peer, "over the pty"), "over the pty")

    def test_debug_console(self):
        path = self.folder / "e9"
        guest = Guest().out(0xE9, ord("d")).say("s").exit(1)
        code, out, _ = vmm(*guest.arguments(self), "--debug-console", path)
        self.assertEqual((code, out, path.read_text()), (3, "s", "d"))
        code, out, _ = vmm(*guest.arguments(self), "--debug-console", "stdio")
        self.assertEqual((code, sorted(out)), (3, ["d", "s"]))
        code, out, _ = vmm(*guest.arguments(self), "--debug-console", path, "--testdev")
        self.assertEqual((code, out, path.read_text()), (3, "s", "d"))

    def test_clock_begins_at_a_date(self):
        # The year of the century: BCD at index 9.
        guest = Guest().out(0x70, 0x09).say_port(0x71).exit(1)
        for arguments in (["--clock", "base=2087-06-01"], ["--clock", "frozen,base=2087-06-01"]):
            code, out, _ = vmm(*guest.arguments(self), *arguments)
            self.assertEqual((code, out), (3, "\x87"))
        code, _, err = vmm("run", "--clock", "base=2087-13-01")
        self.assertEqual(code, 2)
        self.assertIn("--clock", err)

    def test_trace(self):
        code, _, err = vmm(*Guest().say("x").exit(1).arguments(self), "--trace=pio", "-q")
        self.assertEqual(code, 3)
        self.assertRegex(err, r"(?m)^vmm: vcpu0 pio write port 0x3f8 .* value 0x78 rip 0x[0-9a-f]+$")
        self.assertEqual([l for l in err.splitlines() if " pio " not in l], [])
        _, _, err = vmm(*Guest().say("x").exit(1).arguments(self), "--trace=mmio", "-q")
        self.assertEqual(err, "")

    def test_trace_of_some_ports(self):
        guest = Guest().say("x").out(0x80, 7).exit(1)
        _, _, err = vmm(*guest.arguments(self), "--trace=pio:0x80,pio:0x400-0x4ff", "-q")
        self.assertEqual([l.split()[4] for l in err.splitlines() if " pio " in l], ["port"])
        self.assertIn("port 0x80 ", err)
        for wrong, why in (("pio:", "is not a number"), ("pio:9-8", "ends before it begins"), ("pio:0x80-", "is not a number"), ("pioo:1", "not a kind of exit")):
            code, _, err = vmm(*guest.arguments(self), f"--trace={wrong}")
            self.assertEqual(code, 2)
            self.assertIn("--trace", err)
            self.assertIn(why, err)

    def test_trace_of_interrupts(self):
        # The UART asks for the next byte as soon as it may; reading the reason takes that back.
        guest = Guest().out(0x3F9, 2).say_port(0x3FA).exit(1)
        _, _, err = vmm(*guest.arguments(self), "--trace=irq", "-q")
        lines = [line for line in err.splitlines() if "gsi 4" in line]
        self.assertEqual(lines[:2], ["vmm: irq gsi 4 raised", "vmm: irq gsi 4 lowered"])
        self.assertNotIn(" pio ", err)

    def test_places_of_interrupts_have_names(self):
        """A kernel that lies 2 MiB behind its symbols, as IA32_LSTAR tells, is interrupted by the UART."""
        base, handler, gate = 0x201000, 0x201800, 0x3000 + 16 * 0x24
        guest = Guest().raw([0xB9, 0x82, 0, 0, 0xC0, 0xB8, 0x10, 0x10, 0x20, 0, 0x31, 0xD2, 0x0F, 0x30])  # mov ecx, 0xc0000082; mov eax, 0x201010; xor edx, edx; wrmsr
        guest.raw([0x48, 0xB8, *handler.to_bytes(8, "little"), 0x48, 0xBB, *gate.to_bytes(8, "little")])  # mov rax, handler; mov rbx, gate
        guest.raw([0x66, 0x89, 0x03, 0x8C, 0xC9, 0x66, 0x89, 0x4B, 0x02])  # mov [rbx], ax; mov ecx, cs; mov [rbx+2], cx
        guest.raw([0x66, 0xC7, 0x43, 0x04, 0x00, 0x8E])  # mov word [rbx+4], 0x8e00
        guest.raw([0x48, 0xC1, 0xE8, 0x10, 0x66, 0x89, 0x43, 0x06, 0xBC, 0, 0x60, 0, 0])  # shr rax, 16; mov [rbx+6], ax; mov esp, 0x6000
        guest.raw([0x66, 0xC7, 0x04, 0x25, 0x00, 0x40, 0, 0, 0xFF, 0x0F])  # mov word [0x4000], 0xfff
        guest.raw([0x48, 0xC7, 0x04, 0x25, 0x02, 0x40, 0, 0, 0x00, 0x30, 0, 0])  # mov qword [0x4002], 0x3000
        guest.raw([0x0F, 0x01, 0x1C, 0x25, 0x00, 0x40, 0, 0])  # lidt [0x4000]
        guest.out(0x20, 0x11).out(0x21, 0x20).out(0x21, 4).out(0x21, 1).out(0x21, 0xEF).out(0xA1, 0xFF)
        guest.out(0x3F9, 2).raw([0xFB]).hang()  # sti
        guest.code = guest.code.ljust(handler - base, b"\x90") + Guest().exit(1).code
        arguments = guest.arguments(self)
        arguments[arguments.index("flat")] = f"flat,addr={base:#x}"
        with tempfile.NamedTemporaryFile(suffix=".map") as symbols:
            symbols.write(b"1000 T _text\n1010 T entry_SYSCALL_64\n1040 T idle\n1800 T handler\n2000 T _end\n")
            symbols.flush()
            code, _, err = vmm(*arguments, "--trace=irq", "-q", "--irqchip", "user", "--symbols", symbols.name)
        self.assertEqual(code, 3, err)
        line = next(line for line in err.splitlines() if "vcpu0 irq vector 0x24" in line)
        if " rip " in line:  # a KVM that tells registers with each exit
            self.assertRegex(line, r" rip 0x201[0-9a-f]{3} <idle\+0x[0-9a-f]+>$")

    def test_pasted_input_arrives_intact(self):
        text = "".join(f"{i}," for i in range(2500)).encode()
        running = Running(self, Guest().echo().arguments(self), stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        running.process.stdin.write(text)
        running.process.stdin.close()
        running.process.stdin = None
        self.assertEqual(read_until(running.process.stdout.fileno(), ",2499,"), text.decode())
        # The end of its input is not the guest's end.
        self.assertIsNone(running.process.poll())

    def test_slow_reader_loses_nothing(self):
        size = 100_000  # more than a pipe holds
        running = Running(self, Guest().repeat("x", size).exit(1).arguments(self),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(1)
        self.assertEqual(len(running.process.stdout.read()), size)
        self.assertEqual(running.wait(), 3)

    def test_reader_that_leaves_does_not_end_the_guest(self):
        running = Running(self, Guest().say("y").repeat("x", 5000).exit(1).arguments(self),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        read_until(running.process.stdout.fileno(), "y")
        running.process.stdout.close()
        running.process.stdout = None
        self.assertEqual(running.wait(), 3)
        self.assertRegex(running.process.stderr.read().decode(), r"\d+ bytes of the guest's output were lost")

    def test_shared_output_stays_blocking(self):
        # The flag would outlive the command on a descriptor that the shell shares.
        read_end, write_end = os.pipe()
        running = Running(self, Guest().say("x").exit(1).arguments(self),
                          stdin=subprocess.DEVNULL, stdout=write_end, stderr=subprocess.DEVNULL)
        self.assertEqual(running.wait(), 3)
        self.assertTrue(os.get_blocking(write_end))
        os.close(read_end)
        os.close(write_end)


if __name__ == "__main__":
    vmm_process.main()
