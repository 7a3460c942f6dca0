"""The Python bindings, and with them the C API of the shared library.

    python_test.py LIBVMM.SO
"""
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import threading
import unittest

PYTHON = pathlib.Path(__file__).resolve().parents[2] / "python"
sys.path.insert(0, str(PYTHON))
import vmm  # noqa: E402

ENOUGH = 120
COUNTER = 0x2000
# mov $0x3f8,%dx; mov $'o',%al; out %al,(%dx); mov $'k',%al; out %al,(%dx); then for ever: out %al,$0x80; incl 0x2000
TALK = bytes.fromhex("66baf803 b06f ee b06b ee e680 ff042500200000 ebf5")
# mov $7,%ebx; mov $0x2a,%al; out %al,$0xf4; jmp .
EXIT = bytes.fromhex("bb07000000 b02a e6f4 ebfe")


def machine(code, **more):
    return vmm.Vm(code=code, memory=2 << 20, irqchip="none", **more)


class Python(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        try:
            machine(EXIT).close()
        except vmm.Error as error:
            if error.code == "NoKvm":
                raise unittest.SkipTest(f"needs KVM: {error}")
            raise

    def count(self, vm):
        return struct.unpack("<I", vm.read(COUNTER, 4))[0]

    def test_run_and_registers(self):
        with machine(EXIT) as vm:
            stop = vm.run(ENOUGH)
            self.assertEqual((stop.reason, stop.value), ("debug exit", 0x2A))
            registers = vm.registers()
            self.assertEqual(registers.rbx, 7)
            registers.r15 = 99
            vm.set_registers(registers)
            self.assertEqual(vm.registers().r15, 99)
            self.assertTrue(vm.control_registers().efer & (1 << 10))  # long mode
            vm.set_msr(0xC0000082, 0x1000)
            self.assertEqual(vm.msr(0xC0000082), 0x1000)

    def test_bindings_name_this_version(self):
        major, minor, _ = vmm.version().split(".")
        self.assertEqual(vmm._library._SONAME, f"libvmm.so.{major}.{minor}" if major == "0" else f"libvmm.so.{major}")

    def test_run_until(self):
        with machine(TALK) as vm:
            stop = vm.run_until(ENOUGH, console="ok")
            self.assertEqual((stop.met, stop.reason, stop.console), (True, "condition met", "ok"))
            self.assertEqual(vm.console, "ok")
            self.assertTrue(vm.run_until(ENOUGH, exits=5).met)
            self.assertEqual(self.count(vm), 4)
            self.assertFalse(vm.run_until(0.1, match="never$").met)
            self.assertTrue(vm.run_until(ENOUGH, address=0x100C).met)
            self.assertEqual(vm.registers().rip, 0x100C)
            self.assertTrue(vm.step(ENOUGH).met)
            self.assertEqual(vm.registers().rip, 0x1013)
            with self.assertRaises(TypeError):
                vm.run_until(1)

    def test_hypercalls(self):
        seen = []

        def doubled(hypercall):
            registers = hypercall.registers()
            seen.append((hypercall.cpu, hypercall.port, hypercall.value, hypercall.read(registers.rsi, 4)))
            hypercall.write_virtual(registers.rsi, b"pong")
            registers.rbx *= 2
            hypercall.set_registers(registers)

        # mov $0x3000,%esi; mov $21,%ebx; mov $9,%al; mov $0x640,%dx; out %al,(%dx); mov $1,%al; out %al,$0xf4
        code = bytes.fromhex("be00300000 bb15000000 b009 66ba4006 ee b001 e6f4")
        with machine(code, hypercalls={0x640: doubled}) as vm:
            vm.write(0x3000, b"ping")
            copy = vm.clone()
            self.assertEqual(vm.run(ENOUGH).reason, "debug exit")
            self.assertEqual(seen, [(0, 0x640, 9, b"ping")])
            self.assertEqual((vm.registers().rbx, vm.read(0x3000, 4)), (42, b"pong"))
            with copy:
                self.assertEqual(copy.run(ENOUGH).reason, "debug exit")
                self.assertEqual(len(seen), 2)

        def raises(hypercall):
            raise KeyError("no such call")

        with machine(code, hypercalls={0x640: raises}) as vm:
            with self.assertRaises(KeyError):
                vm.run(ENOUGH)
            self.assertEqual(vm.run(ENOUGH).reason, "debug exit")

        with machine(code, hypercalls={0x640: lambda hypercall: hypercall.stop(5)}) as vm:
            stop = vm.run(ENOUGH)
            self.assertEqual((stop.reason, stop.value), ("condition met", 5))
        with self.assertRaises(vmm.Error):
            machine(code, hypercalls={0x3F8: raises})

    def test_memory(self):
        with machine(EXIT) as vm:
            vm.write(0x3000, b"a\0b")
            self.assertEqual(vm.read_virtual(0x3000, 3), b"a\0b")
            vm.write_virtual(0x3001, b"cd")
            self.assertEqual(vm.read(0x3000, 3), b"acd")
            with self.assertRaises(vmm.Error) as refused:
                vm.read(2 << 20, 1)
            self.assertEqual(refused.exception.code, "OutOfRange")

    def test_snapshot_reset_and_clone(self):
        with machine(TALK) as vm:
            vm.run_until(ENOUGH, exits=10)
            before = self.count(vm)
            snapshot = vm.snapshot()
            vm.run_until(ENOUGH, exits=10)
            self.assertGreater(self.count(vm), before)
            with vm.clone() as clone:
                vm.reset_to(snapshot)
                self.assertEqual(self.count(vm), before)
                self.assertGreater(self.count(clone), before)
                self.assertTrue(clone.run_until(ENOUGH, exits=3).met)
            with tempfile.TemporaryDirectory() as folder:
                path = pathlib.Path(folder) / "saved"
                vm.save(path)
                with vmm.Vm(snapshot=vmm.Snapshot(path)) as again:
                    self.assertEqual(self.count(again), before)
                vm.run_until(ENOUGH, exits=10)
                later, increment = self.count(vm), pathlib.Path(folder) / "increment"
                vm.save_increment(increment, path)
                with vmm.Vm(snapshot=vmm.Snapshot(increment)) as again:
                    self.assertEqual(self.count(again), later)
                with self.assertRaises(vmm.Error) as refused:
                    vm.save_increment(path, path)
                self.assertEqual(refused.exception.code, "BadConfig")

    def test_memory_that_comes_when_it_is_touched(self):
        with tempfile.TemporaryDirectory() as folder:
            path, list_path = pathlib.Path(folder) / "saved", pathlib.Path(folder) / "pages"
            with machine(TALK) as vm:
                vm.run_until(ENOUGH, exits=10)
                before = self.count(vm)
                vm.save(path)
                with self.assertRaises(vmm.Error) as refused:
                    vm.used_pages()
                self.assertEqual(refused.exception.code, "Unsupported")
                in_memory = vm.snapshot()
            snapshot = vmm.Snapshot(path)
            try:
                first = vmm.Vm(snapshot=snapshot, faulted=True)
            except vmm.Error as error:
                if error.code == "Unsupported":
                    self.skipTest(str(error))
                raise
            with first:
                self.assertTrue(first.run_until(ENOUGH, exits=10).met)
                used = first.used_pages()
                self.assertGreater(self.count(first), before)
            self.assertIn(1, used.pages)  # the code
            self.assertNotIn(0x100, used.pages)
            used.write(list_path)
            again = vmm.PageList(list_path)
            self.assertEqual(again.pages, used.pages)
            with vmm.Vm(snapshot=snapshot, faulted=True, prefetch=again) as second:
                self.assertTrue(second.run_until(ENOUGH, exits=10).met)
                self.assertEqual(set(second.used_pages().pages), set(used.pages))
            self.assertEqual(vmm.PageList.of(snapshot, range(3)).pages, (0, 1, 2))
            self.assertEqual(vmm.PageList.of(snapshot, []).pages, ())
            for mistake in (lambda: vmm.PageList.of(snapshot, [1 << 40]), lambda: vmm.PageList(path),
                            lambda: vmm.Vm(snapshot=in_memory, faulted=True, prefetch=used)):
                with self.assertRaises(vmm.Error) as refused:
                    mistake()
                self.assertEqual(refused.exception.code, "BadState")
            with self.assertRaises(TypeError):
                vmm.Vm(snapshot=snapshot, prefetch=used)
            with self.assertRaises(TypeError):
                machine(TALK, faulted=True)
            # Bytes of the file that are not what they were: where a mapping would not tell.
            content = bytearray(path.read_bytes())
            content[4096 + 0x1000 + 200] ^= 1
            path.write_bytes(content)
            with vmm.Vm(snapshot=vmm.Snapshot(path), faulted=True) as damaged:
                self.assertEqual(damaged.run(ENOUGH).reason, "memory fault")

    def test_time_that_stands_still(self):
        # mov dx, 0x608 (the PM timer); 1: in eax, dx; mov [0x2008], rax; inc qword [COUNTER]; jmp 1b
        watch = bytes.fromhex("66ba0806" "ed" "4889042508200000" "48ff0425") + COUNTER.to_bytes(4, "little") + b"\xeb\xed"

        def timer(vm):
            before = self.count(vm)
            while self.count(vm) < before + 2:
                vm.run(0.001)
            return struct.unpack("<I", vm.read(0x2008, 4))[0]

        with vmm.Vm(code=watch, memory=4 << 20, clock_rate=0) as vm:
            self.assertEqual(timer(vm), 0)
            vm.advance_time(2)
            self.assertEqual(timer(vm), 2 * 3_579_545)
            with vm.clone() as clone:
                clone.advance_time(1)
                self.assertEqual(timer(clone), 3 * 3_579_545)
        with machine(TALK) as vm, self.assertRaises(vmm.Error) as refused:
            vm.advance_time(1)
        self.assertEqual(refused.exception.code, "BadState")

    def test_events_and_local_apic(self):
        with vmm.Vm(code=EXIT, memory=2 << 20, irqchip="user") as vm:
            events = vm.events()
            self.assertEqual((events.nmi_masked, events.interrupt_injected), (0, 0))
            events.nmi_masked = 1
            vm.set_events(events)
            self.assertEqual(vm.events().nmi_masked, 1)
            lapic = vm.lapic()
            self.assertEqual((lapic.id, lapic.version & 0xF0), (0, 0x10))
            lapic.tpr, lapic.lvt_error = 0x30, 0x100FE
            lapic.irr[0x41 // 32] |= 1 << 0x41 % 32
            vm.set_lapic(lapic)
            lapic = vm.lapic()
            self.assertEqual((lapic.tpr, lapic.lvt_error, lapic.irr[2]), (0x30, 0x100FE, 2))
            lapic.tpr = 0x100
            with self.assertRaises(vmm.Error) as refused:
                vm.set_lapic(lapic)
            self.assertEqual(refused.exception.code, "BadConfig")
        with machine(EXIT) as vm:
            with self.assertRaises(vmm.Error) as refused:
                vm.lapic()
            self.assertEqual(refused.exception.code, "Unsupported")

    def test_pause_and_cancel_from_another_thread(self):
        with machine(TALK) as vm:
            stops = []
            runner = threading.Thread(target=lambda: stops.append(vm.run(ENOUGH)))
            vm.pause()
            runner.start()
            self.assertEqual(self.count(vm), 0)
            vm.resume()
            while not self.count(vm):
                pass
            vm.cancel()
            runner.join()
            self.assertEqual(stops[0].reason, "cancelled")

    def test_errors_are_exceptions(self):
        with self.assertRaisesRegex(vmm.Error, "Memory|memory"):
            vmm.Vm(code=EXIT, memory=1)
        with self.assertRaisesRegex(vmm.Error, "'maybe' is no irqchip"):
            vmm.Vm(irqchip="maybe")
        with self.assertRaisesRegex(vmm.Error, "/nowhere"):
            vmm.Snapshot("/nowhere")
        closed = machine(EXIT)
        closed.close()
        with self.assertRaises(ValueError):
            closed.run(1)


class Pytest(unittest.TestCase):
    """The plugin, in a pytest of its own. Debian's pytest belongs to Debian's Python."""

    TESTS = """
import pytest, vmm
pytest_plugins = ["vmm.pytest_plugin"]

@pytest.fixture(scope="module")
def vmm_machine():
    return vmm.Vm(code=bytes.fromhex("%s"), memory=2 << 20, irqchip="none")

@pytest.fixture(scope="module")
def vmm_ready():
    return %r

def count(guest):
    return int.from_bytes(guest.read(0x2000, 4), "little")

def test_one(guest):
    begin = count(guest)
    assert guest.run_until(60, exits=4).met
    assert count(guest) > begin
    guest.write(0x2000, bytes(4))

def test_two(guest):
    assert guest.console == ""
    assert count(guest) == 0
    assert guest.run_until(60, exits=2).met

def test_that_fails(guest):
    assert guest.run_until(60, exits=3).met
    assert count(guest) == 1000
"""

    def pytest(self, ready):
        for python in ("/usr/bin/python3", sys.executable):
            if subprocess.run([python, "-m", "pytest", "--version"], capture_output=True).returncode == 0:
                break
        else:
            self.skipTest("there is no pytest")
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "test_guest.py"
            file.write_text(self.TESTS % (TALK.hex(), ready), encoding="utf-8")
            environment = dict(os.environ, PYTHONPATH=str(PYTHON), PYTHONDONTWRITEBYTECODE="1")
            done = subprocess.run([python, "-m", "pytest", "-p", "no:cacheprovider", "-rA", file], env=environment,
                                  capture_output=True, text=True, timeout=ENOUGH)
        if "needs KVM" in done.stdout:
            self.skipTest("needs KVM")
        return done.stdout + done.stderr

    def test_each_test_has_a_guest_of_its_own(self):
        out = self.pytest({"console": "ok"})
        self.assertIn("1 failed, 2 passed", out)
        self.assertIn("Guest registers", out)
        self.assertRegex(out, r"Registers\(rax=0x6b")

    def test_guest_that_does_not_get_ready(self):
        out = self.pytest({"console": "never", "deadline": 0.1})
        self.assertIn("3 errors", out)
        self.assertIn("the guest did not get ready: deadline", out)


if __name__ == "__main__":
    os.environ["VMM_LIBRARY"] = sys.argv.pop(1)
    unittest.main()
