"""What is kept of a machine whose test failed: logs from its start on, the rest when it fails."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import shutil
import time
from contextlib import suppress

import launcher
from launcher.errors import LauncherError
from launcher.rig.transcript import Transcript

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from launcher.machine import Machine

#: Seconds for what is asked of a QEMU that may be stuck.
_PATIENCE = 5.0
# Members of QMP arguments that are nobody's business: `data` is of the secret objects.
_SECRET = re.compile(rb'"(password|data|secret)": *"(?:[^"\\]|\\.)*"')


class Record:
    """The folder of one machine, and the logs that are written there while it runs.

    Attributes:
        folder: its path; removed by `discard`.
    """

    def __init__(self, folder: str) -> None:
        os.makedirs(folder, exist_ok=True)
        self.folder = folder
        self._start = time.monotonic()
        self._logs: list[Transcript] = []

    def attach(self, machine: Machine) -> None:
        """Write down what the consoles and the monitor say from now on."""
        for name, console in machine.consoles.items():
            console.listen(self._log(f"{name}.log").write)
        talk = self._log("qmp.log")

        def heard(way: str, message: Any) -> None:
            talk.line(way.encode() + b" " + _SECRET.sub(rb'"\1": "..."', bytes(message)))

        machine.monitor.overhear(heard)

    def _log(self, name: str) -> Transcript:
        log = Transcript(os.path.join(self.folder, name), self._start)
        self._logs.append(log)
        return log

    async def gather(self, machine: Machine) -> list[str]:
        """Add what the machine is now; returns lines that say where its guest is."""
        from launcher.report import plan_json, report_json, report_text

        plan, report = machine.plan, machine.report
        machine.process.drain()
        self._keep("plan.json", lambda: _json(plan_json(plan, machine.argv)))
        self._keep("stderr.log", lambda: "\n".join([*machine.process.stderr.lines, ""]))
        self._keep("versions.json", lambda: _json(_versions(machine)))
        if report is not None:
            self._keep("report.json", lambda: _json(report_json(report)))
            self._keep("report.txt", lambda: report_text(report) + "\n")
        lock = machine.prepared.loaded.request.lock
        if lock:
            with suppress(OSError):
                shutil.copy(lock, self.folder)
        lines = await machine.whereabouts()
        self._keep("whereabouts.txt", lambda: "\n".join([*lines, ""]))
        await self._screen(machine)
        return lines

    async def _screen(self, machine: Machine) -> None:
        """The first display, where the machine has one."""
        with suppress(LauncherError, TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await machine.screendump(os.path.join(self.folder, "screen.png"))

    def copy(self, folder: str) -> Record:
        """What there is so far in another folder, to which the logs do not go on."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return Record(folder)

    def _keep(self, name: str, text: Callable[[], str]) -> None:
        with (
            suppress(OSError),
            open(os.path.join(self.folder, name), "w", encoding="utf-8") as file,
        ):
            file.write(text())

    def files(self) -> list[str]:
        """The paths of what is there and not empty."""
        found = (os.path.join(self.folder, name) for name in sorted(os.listdir(self.folder)))
        return [path for path in found if os.path.getsize(path)]

    def close(self) -> None:
        """End the logs."""
        for log in self._logs:
            log.close()

    def discard(self) -> None:
        """End the logs, and remove the folder."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            os.rmdir(os.path.dirname(self.folder))  # the test's, when this was its last


def _versions(machine: Machine) -> dict[str, Any]:
    return {
        "qemu-launcher": launcher.__version__,
        "python": platform.python_version(),
        "host": " ".join(platform.uname()),
        "qemu": {
            "binary": machine.plan.binary,
            "version": machine.plan.version,
            "build": machine.plan.build,
        },
        "platform": machine.plan.platform,
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, default=str) + "\n"
