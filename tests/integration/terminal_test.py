"""The command on a terminal: keys, and a terminal that is as it was on every way out.

    terminal_test.py PATH-OF-VMM
"""
import os
import signal
import subprocess
import time
import unittest

import vmm_process
from vmm_process import Guest, OnTerminal, eventually, needs_kvm


@needs_kvm
class Restored(unittest.TestCase):
    """The guest runs, the terminal is raw; after the end it is as before."""

    def start(self, guest, *options, **streams):
        running = OnTerminal(self, guest.arguments(self) + list(options), **streams)
        running.read_until("!")
        self.assertTrue(eventually(running.is_raw))
        return running

    def expect_end(self, running, status):
        # What is still to be read would block the command's last lines.
        text = running.read_until("vmm: ")
        self.assertEqual(running.wait(), status, text)
        self.assertTrue(running.is_restored())

    def test_after_the_guest_ended(self):
        guest = Guest().say("!").repeat("x", 2000).exit(1)
        running = OnTerminal(self, guest.arguments(self))
        running.read_until("vmm: guest ended through the debug-exit")
        self.assertEqual(running.wait(), 3)
        self.assertTrue(running.is_restored())

    def test_after_signals(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            with self.subTest(number.name):
                running = self.start(Guest().say("!").hang())
                running.signal(number)
                self.expect_end(running, 130)

    def test_after_the_escape_key(self):
        running = self.start(Guest().say("!").hang())
        running.type("\x01x")
        self.expect_end(running, 130)

    def test_after_a_timeout(self):
        running = self.start(Guest().say("!").hang(), "--timeout", "1")
        self.expect_end(running, 26)

    def test_after_a_crash(self):
        for number in (signal.SIGSEGV, signal.SIGABRT):
            with self.subTest(number.name):
                running = self.start(Guest().say("!").hang())
                running.signal(number)
                self.assertEqual(running.wait(), -number)
                self.assertTrue(running.is_restored())

    def test_while_stopped(self):
        running = self.start(Guest().say("!").hang())
        running.signal(signal.SIGTSTP)
        pid = running.process.pid
        _, status = os.waitpid(pid, os.WUNTRACED)
        self.assertTrue(os.WIFSTOPPED(status))
        self.assertTrue(running.is_restored())
        running.signal(signal.SIGCONT)
        self.assertTrue(eventually(running.is_raw))
        running.type("\x01x")
        self.expect_end(running, 130)

    def test_the_guests_time_stands_still_while_stopped(self):
        # Seconds of the clock, in BCD and readable.
        guest = Guest().say("!").wait_for_input().out(0x70, 0).raw([0x66, 0xBA, 0x71, 0x00, 0xEC, 0x04, 0x40])
        guest.raw([0x66, 0xBA, 0xF8, 0x03, 0xEE]).say("\n").exit(1)
        begin = time.monotonic()
        running = self.start(guest, "--clock", "frozen,base=2026-01-01")
        running.signal(signal.SIGTSTP)
        _, status = os.waitpid(running.process.pid, os.WUNTRACED)
        self.assertTrue(os.WIFSTOPPED(status))
        pause = 3
        time.sleep(pause)
        running.signal(signal.SIGCONT)
        self.assertTrue(eventually(running.is_raw))
        running.type("x")
        text = running.read_until("\n")
        most = time.monotonic() - begin - pause
        seconds = int(f"{ord(text[-2]) - 0x40:x}")
        # The clock begins within the second of its base: what it is ahead of the host's is in whole seconds.
        self.assertLessEqual(seconds, most + 1)
        self.expect_end(running, 3)

    def test_after_a_bad_kernel(self):
        running = OnTerminal(self, ["run", "--kernel", __file__])
        running.read_until("vmm: ")
        self.assertEqual(running.wait(), 6)
        self.assertTrue(running.is_restored())


@needs_kvm
class Keys(unittest.TestCase):
    def setUp(self):
        self.running = OnTerminal(self, Guest().say("!").echo().arguments(self))
        self.running.read_until("!")
        self.assertTrue(eventually(self.running.is_raw))

    def expect_echo(self, typed, expected):
        self.running.type(typed + "#")
        self.assertEqual(self.running.read_until("#"), expected + "#")

    def test_control_keys_reach_the_guest(self):
        self.expect_echo("\x03\x1a\x1c\r\x7f", "\x03\x1a\x1c\r\x7f")
        self.assertIsNone(self.running.process.poll())

    def test_escape_key_twice_is_one(self):
        self.expect_echo("a\x01\x01b", "a\x01b")

    def test_unknown_sequence_passes(self):
        self.expect_echo("\x01z", "\x01z")

    def test_menu(self):
        self.running.type("\x01c")
        menu = self.running.read_until("back to the guest")
        # Lines must not march to the right on a raw terminal.
        self.assertIn("\r\nvmm: s statistics", menu)
        self.running.type("s")
        self.assertIn("exits: ", self.running.read_until("serial port:"))
        self.running.type("\x01cp")
        self.assertIn("CPU 0: cs:rip", self.running.read_until("r15"))
        # The guest has gone on.
        self.running.read_until("\n")
        self.expect_echo("x", "x")
        self.running.type("\x01cq")
        self.assertIn("interrupted", self.running.read_until("interrupted"))
        self.assertEqual(self.running.wait(), 130)

    def test_quit_while_the_guest_reads_nothing(self):
        hung = OnTerminal(self, Guest().say("!").hang().arguments(self))
        hung.read_until("!")
        self.assertTrue(eventually(hung.is_raw))
        for _ in range(50):
            hung.type("typed ahead into a guest that never looks " * 20)
        hung.type("\x01x")
        self.assertEqual(hung.wait(), 130)


@needs_kvm
class EscapeOption(unittest.TestCase):
    def test_another_key(self):
        running = OnTerminal(self, Guest().say("!").echo().arguments(self) + ["--escape", "^T"])
        running.read_until("!")
        self.assertTrue(eventually(running.is_raw))
        running.type("\x01x#")
        self.assertEqual(running.read_until("#"), "\x01x#")
        running.type("\x14x")
        self.assertEqual(running.wait(), 130)

    def test_pipe_is_raw_data(self):
        running = vmm_process.Running(
            self, Guest().echo().arguments(self), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL)
        os.write(running.process.stdin.fileno(), b"\x01x#")
        self.assertEqual(vmm_process.read_until(running.process.stdout.fileno(), "#"), "\x01x#")

    def test_pipe_with_the_escape_key_on(self):
        arguments = Guest().echo().arguments(self) + ["--escape", "on"]
        running = vmm_process.Running(self, arguments, stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        os.write(running.process.stdin.fileno(), b"\x01x")
        self.assertEqual(running.wait(), 130)


if __name__ == "__main__":
    vmm_process.main()
