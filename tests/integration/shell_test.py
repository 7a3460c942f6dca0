"""A shell in the guest, used as a person at a terminal would use it, and as a script would through a pipe."""
import tempfile
import unittest

from guest import PROMPT, Machine, make_initramfs, requirements


class Shell(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.kernel = requirements()
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.initramfs = make_initramfs(cls.folder.name, "--shell")

    def machine(self, **options):
        arguments = ["--kernel", self.kernel, "--initrd", str(self.initramfs), "--mem", "128M"]
        return Machine([*arguments, "--cmdline", "quiet"], **options)

    def test_at_a_terminal(self):
        with self.machine(terminal=True) as guest:
            guest.wait_for(PROMPT)

            # What is typed comes back, and then the answer: the sum is in the answer only.
            said = len(guest.text)
            guest.type("echo typed-$((40 + 2))\r")
            guest.wait_for(r"echo typed-\$\(\(40 \+ 2\)\)", said)
            guest.wait_for(r"typed-42\r\n", said)

            # A mistake taken back: the shell never sees it.
            said = len(guest.text)
            guest.type("echo wrongg\x7f\x7f\x7f\x7f\x7f\x7fright-$((1 + 1))\r")
            guest.wait_for(r"\nright-2\r\n", said)

            # Ctrl-C kills what runs, not the machine: to the program it is a byte like any other.
            said = len(guest.text)
            guest.type("sh -c 'echo running-$((3 + 4)); exec sleep 1000'\r")
            guest.wait_for(r"running-7\r\n", said)
            said = len(guest.text)
            guest.type("\x03")
            guest.wait_for(PROMPT, said)
            guest.type("echo status-$?\r")
            guest.wait_for(r"status-130\r\n", said)

            # A line longer than the serial port's FIFO, typed at once.
            said = len(guest.text)
            guest.type("echo " + "x" * 300 + " | tr -d '\\n' | wc -c\r")
            guest.wait_for(r"\n300\r\n", said)

            guest.type("poweroff -f\r")
            self.assertEqual(guest.wait_for_end(), 0, guest.diagnosis())
            self.assertEqual(guest.settings_now(), guest.settings_before)

    def test_from_a_pipe(self):
        with self.machine() as guest:
            guest.wait_for(PROMPT)
            said = len(guest.text)
            guest.type("echo piped-$((20 + 3))\nexpr 6 '*' 7\n[ -e /init ] && echo init-$((5 - 4))\n")
            guest.wait_for(r"piped-23\r?\n", said)
            guest.wait_for(r"\n42\r?\n", said)
            guest.wait_for(r"init-1\r?\n", said)
            # The end of the input is not the end of the machine; leaving the shell is.
            guest.type("sleep 1; echo late-$((7 + 7)); exit\n")
            guest.close_input()
            guest.wait_for(r"late-14\r?\n", said)
            self.assertEqual(guest.wait_for_end(), 0, guest.diagnosis())


if __name__ == "__main__":
    unittest.main(verbosity=2)
