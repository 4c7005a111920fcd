"""The migration that `qemu-launcher migrate` rehearses, as one would write it by hand with raw QMP.

usage: handwritten.py SOURCE DESTINATION GUEST

No plan, no verification, no preflight, no undoing: what the launcher's own cost is compared with.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import subprocess
import sys
import tempfile
from typing import Any

MACHINE = "microvm,acpi=off,pit=on,pic=on,rtc=on,isa-serial=on,memory-backend=ram"


class End:
    """One QEMU: its monitor and its console are socket pairs."""

    def __init__(self, binary: str, guest: str, *words: str) -> None:
        qmp, theirs = socket.socketpair()
        self.console, serial = socket.socketpair()
        argv = [binary, "-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg"]
        argv += ["-object", "memory-backend-memfd,id=ram,size=128M", "-m", "128M"]
        argv += ["-machine", MACHINE, "-cpu", "qemu64", "-S", *words]
        argv += ["-kernel", f"{guest}/vmlinuz", "-initrd", f"{guest}/initrd.img"]
        argv += ["-append", "console=ttyS0 quiet loglevel=3 tick=0.1"]
        argv += ["-chardev", f"socket,id=con,fd={serial.fileno()}", "-serial", "chardev:con"]
        argv += ["-chardev", f"socket,id=qmp,fd={theirs.fileno()}", "-qmp", "chardev:qmp"]
        self.process = subprocess.Popen(argv, pass_fds=(theirs.fileno(), serial.fileno()))
        theirs.close()
        serial.close()
        self.qmp = qmp.makefile("rw")
        self.qmp.readline()
        self.text = ""
        self.ask("qmp_capabilities")
        events = [{"capability": "events", "state": True}]
        self.ask("migrate-set-capabilities", capabilities=events)

    def ask(self, command: str, **arguments: Any) -> Any:
        """Execute a command; events are passed over."""
        self.qmp.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.qmp.flush()
        while "event" in (answer := json.loads(self.qmp.readline())):
            continue
        return answer["return"]

    def completed(self) -> None:
        """Wait until this end says so."""
        while (status := self.ask("query-migrate").get("status")) != "completed":
            assert status != "failed"
            select.select([], [], [], 0.02)

    def show(self, pattern: str) -> None:
        """Wait for the console to show it, or for its end."""
        while not re.search(pattern, self.text) and (data := self.console.recv(65536)):
            self.text += data.decode()


def main() -> None:
    """Boot, migrate, follow the counter, end."""
    source_binary, destination_binary, guest = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        source = End(source_binary, guest)
        source.ask("cont")
        source.show(r"tick \d+\r?\n")
        destination = End(destination_binary, guest, "-incoming", "defer")
        uri = f"unix:{os.path.join(folder, 'm')}"
        destination.ask("migrate-incoming", uri=uri)
        source.ask("migrate", uri=uri)
        source.completed()
        destination.completed()
        destination.ask("cont")
        source.ask("quit")
        source.process.wait()
        source.show(r"(?!)")
        destination.show(r"(?s)(tick \d+\r?\n.*?){2}")
        destination.ask("quit")
        destination.process.wait()
        numbers = [int(n) for n in re.findall(r"tick (\d+)\r?\n", source.text + destination.text)]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), numbers


if __name__ == "__main__":
    main()
