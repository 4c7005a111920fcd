"""Machines without any QEMU, for tests of programs that use the launcher.

    async with launcher.testing.fake_machine("web.yaml", release="7.2") as machine:
        await the_code_under_test(machine)

The plan is a real one, made of what a real QEMU of that release answered once
(`launcher/recorded`); monitor, console, events and errors are the launcher's own. What is not there
is a QEMU: no guest runs, and the report says of every value that it was not read back.

    machine.py   `fake_machine`, and the machine that it gives
    answers.py   what the recorded QEMU answers to QMP commands
    server.py    the other end of the monitor's socket
    process.py   a process that is none
    records.py   the recorded releases, and a host that has everything
"""

from launcher.testing.machine import FakeMachine, SyncFakeMachine, fake_machine
from launcher.testing.records import releases

__all__ = ["FakeMachine", "SyncFakeMachine", "fake_machine", "releases"]
