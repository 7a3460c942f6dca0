"""Fixtures for pytest: a guest that boots once for a module, and a copy of it for each test.

    # conftest.py, or the test file itself
    pytest_plugins = ["vmm.pytest_plugin"]

    @pytest.fixture(scope="module")
    def vmm_machine():                       # what boots
        return vmm.Vm(kernel="bzImage", initrd="initrd.cpio", memory=256 << 20)

    @pytest.fixture(scope="module")
    def vmm_ready():                         # where tests begin; without it: before the first instruction
        return {"console": "# "}

    def test_uname(guest):
        guest.send("uname -r\\n")
        assert guest.run_until(60, match=r"^6\\.").met

`vmm_ready` are arguments of Vm.run_until(); "deadline" among them is its deadline, in seconds (120). Without KVM the
tests are skipped, with the reason. A failed test's report has the guest's console and registers.
"""
import pytest

import vmm

_BOOT_DEADLINE = 120
_GUESTS = pytest.StashKey()  # of a test: the guests that it was given


@pytest.fixture(scope="module")
def vmm_machine():
    """The machine to boot: the guest that is built in. Meant to be replaced by a fixture of the same name."""
    return vmm.Vm()


@pytest.fixture(scope="module")
def vmm_ready():
    """What Vm.run_until() waits for before the tests begin. Meant to be replaced."""
    return None


@pytest.fixture(scope="module")
def vmm_snapshot(request, vmm_ready):
    """The guest at the point that its tests begin at."""
    try:
        machine = request.getfixturevalue("vmm_machine")
    except vmm.Error as error:
        if error.code == "NoKvm":
            pytest.skip(f"needs KVM: {error}")
        raise
    with machine:
        if vmm_ready:
            wish = dict(vmm_ready)
            stop = machine.run_until(wish.pop("deadline", _BOOT_DEADLINE), **wish)
            if not stop.met:
                pytest.fail(f"the guest did not get ready: {stop.reason}\n{stop.report}\n{machine.console[-2000:]}", pytrace=False)
        return machine.snapshot()


@pytest.fixture
def guest(request, vmm_snapshot):
    """A vmm.Vm of the test's own that goes on from there."""
    with vmm.Vm(snapshot=vmm_snapshot) as machine:
        request.node.stash.setdefault(_GUESTS, []).append(machine)
        yield machine


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if call.when != "call" or not report.failed:
        return
    for machine in item.stash.get(_GUESTS, []):
        try:
            report.sections.append(("Guest console", machine.console))
            report.sections.append(("Guest registers", repr(machine.registers())))
        except (vmm.Error, ValueError) as error:  # it runs in another thread, or the test has closed it
            report.sections.append(("Guest", str(error)))
