"""One `run` from the spawned QEMU to its end: attach, verify, resume, attend, stop."""

from __future__ import annotations

import asyncio
import errno
import signal
import sys
import time

from launcher.cli.reports import write_report
from launcher.cli.service import Service
from launcher.cli.show import note, out_json, show_report
from launcher.cli.signals import ignore_signals, take_signals
from launcher.cli.terminal import Keys, Screen, is_ours
from launcher.diagnose import died
from launcher.errors import HostError, LauncherError, MonitorError, QEMUError
from launcher.process import describe_exit
from launcher.record import replace
from launcher.start import attach, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable, Coroutine
    from contextlib import AbstractContextManager
    from typing import Any

    from launcher.begin import Started
    from launcher.machine import Machine
    from launcher.report import Report

#: Seconds for the last bytes of a console whose machine has ended.
_LAST_WORDS = 2.0
#: Seconds in which a guest that boots has used its CPU enough for a verdict; an idle one has not,
#: and nobody need be told.
_SPEED_WITHIN = 10.0


def _unheard(failure: OSError) -> Exception:
    """What it comes to that the console could not be shown."""
    if failure.errno in (errno.EPIPE, errno.EIO):  # the reader, or the terminal, went away
        return BrokenPipeError()
    words = f"the console cannot be written: {failure.strerror}"
    return HostError(words, code="output")


#: How long `--until` waits when nobody says.
_UNTIL_SECONDS = 120.0


class Session:
    """A machine in the foreground of this process.

    Args:
        options: of `run`.
        started: the spawned QEMU.
        clock: when `run` began, had planned and had spawned, in seconds (time.monotonic).
        noted: signals that came before there was a loop.
        arriving: what is done once the machine is proved, before its guest runs.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        started: Started,
        clock: dict[str, float],
        noted: list[int],
        arriving: Callable[[Machine], Awaitable[None]] | None = None,
    ) -> None:
        self.options = options
        self.started = started
        self.clock = clock
        self._noted = noted
        self._arriving = arriving
        self._service = Service(started.prepared.plan)
        self._report: Report | None = None
        self._status = 0
        self._attending = False
        self._body: asyncio.Task[int] | None = None

    async def live(self) -> int:
        """Do all of it; the exit status.

        Raises:
            LauncherError: of the launch, or QEMU failed, or `--until` was not seen.
            HostError: the console cannot be written (a full disk).
        BrokenPipeError: nobody reads the console any more.
        """
        self._stop = asyncio.Event()
        self._now = asyncio.Event()
        self._kindly = True
        self._body = asyncio.ensure_future(self._launch())
        take_signals(asyncio.get_running_loop(), self._noted, self._end)
        try:
            return await self._body
        except asyncio.CancelledError:
            return self._status
        finally:
            if self._stop.is_set():
                # Whoever is in a hurry signals until we are gone; that is no other end than this.
                ignore_signals(asyncio.get_running_loop())

    def _end(self, number: int) -> None:
        """Stop the machine, as that signal asks; at the second call at once.

        To be told to stop is a good end for a machine that just runs, and none for one that was
        starting, or that was to show something.
        """
        if self._stop.is_set():
            self._now.set()
            return
        done = self._attending and self.options.until is None and number != signal.SIGINT
        self._status = 0 if done else 128 + number
        self._kindly = number != signal.SIGINT
        self._stop.set()
        self._service.stops(signal.Signals(number).name, kindly=self._kindly)
        if not self._attending and self._body is not None:
            self._body.cancel()

    async def _launch(self) -> int:
        self._service.starts()
        try:
            return await self._whole()
        except LauncherError as error:
            self._service.failed(error)
            raise

    async def _whole(self) -> int:
        machine = await attach(self.started)
        kept = False
        try:
            await self._prove(machine)
            if self._arriving is not None:
                await self._arriving(machine)
            if self.options.detach:
                await machine.resume()
                await self._let_go(machine)
                kept = True
                return 0
            return await self._attend(machine)
        finally:
            if not kept:
                await machine.close()

    async def _prove(self, machine: Machine) -> None:
        """Verify, tell, and let only a machine through that may run.

        Raises:
            VerdictError: under `strict`, a value is not as planned.
        """
        self.clock["ready"] = time.monotonic()
        try:
            self._report = await machine.verify()
        except MonitorError as error:
            raise await died(self.started, error) from None
        self.clock["verified"] = time.monotonic()
        if self.options.report:
            write_report(self._report, self.options.report)
        if self.options.format == "text":
            show_report(self._report, to_stdout=False)
            if self.options.stats:
                note(self._stats_text(machine))
        if (self.options.verify or machine.plan.verify) == "strict":
            refuse(self._report)
        if self.options.format == "json":
            self.show_json()

    # -- telling ------------------------------------------------------------------------------

    def show_json(self, error: LauncherError | None = None) -> None:
        """The report as JSON on stdout; with the error that it led to."""
        from launcher.report import report_json

        assert self._report is not None
        value: dict[str, Any] = report_json(self._report)
        value["pid"] = self.started.process.pid
        if self.options.stats:
            value["stats"] |= {"ms": self._milliseconds()}
        if error is not None:
            value["error"] = error.as_json()
        out_json(value)

    def _milliseconds(self) -> dict[str, float]:
        names = ("begin", "planned", "spawned", "ready", "verified")
        times = [self.clock[name] for name in names]
        pairs = zip(names[1:], times[1:], times, strict=False)
        return {name: round((after - before) * 1000, 1) for name, after, before in pairs}

    def _stats_text(self, machine: Machine) -> str:
        monitor, spent = machine.monitor, self._milliseconds()
        assert self._report is not None
        return (
            f"stats: {monitor.commands} QMP commands, {monitor.bytes_sent} bytes, of them "
            f"{self._report.commands} and {self._report.request_bytes} to verify; "
            + ", ".join(f"{name} {taken:g} ms" for name, taken in spent.items())
        )

    # -- while the guest runs -------------------------------------------------------------------

    async def _let_go(self, machine: Machine) -> None:
        """The machine goes on without us; its name and directory stay."""
        # From here on there is nothing left to stop: the exit status must say that it runs.
        ignore_signals(asyncio.get_running_loop())
        await machine.monitor.close()
        machine.resources.release(keep_directory=True)

    async def _watch_speed(self, machine: Machine) -> None:
        """Warn when the kernel interprets a guest that was to run on the CPU.

        `query-kvm` says enabled in both cases, and a guest seems to hang.
        """
        from launcher.speed import watch_speed

        try:
            verdict = await watch_speed(machine, _SPEED_WITHIN)
        except QEMUError:
            return  # it ended; who waits for it says why
        assert self._report is not None
        self._report = replace(self._report, speed=(verdict.native, verdict.reason))
        if verdict.native is False:
            note(f"warning: {machine.plan.name} is not at native speed: {verdict.reason}")
        if self.options.report:
            write_report(self._report, self.options.report)

    async def _attend(self, machine: Machine) -> int:
        """Resume, show the console, and wait for the first reason to end."""
        # With --format json stdout is the report's alone.
        screen = Screen(1 if self.options.format == "text" else 2)
        watching: asyncio.Future[None] | None = None
        beating = asyncio.ensure_future(self._service.beat(machine))
        try:
            with self._keys(machine):
                if machine.consoles:
                    machine.console.listen(screen.write)
                self._attending = True
                if self._stop.is_set():
                    return self._status
                await machine.resume()
                assert self._report is not None
                self._service.runs(self._report)
                if machine.plan.accel == "kvm":
                    watching = asyncio.ensure_future(self._watch_speed(machine))
                status = await self._wait(machine, screen)
                if machine.consoles:
                    await machine.console.wait_closed(_LAST_WORDS)
                # Who reads slowly may read it all, but not hold up somebody who wants an end.
                ends = [screen.lost.wait(), self._stop.wait()]
                await self._first(screen.drain(), *ends)
            if screen.dropped:
                note(f"{screen.dropped} bytes of the console were not shown: nobody took them")
            if screen.lost.is_set():
                raise _unheard(screen.failure)
            return status
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
            if watching is not None:
                watching.cancel()
                # With its error, if it could not write the report: the machine ran all the same.
                await asyncio.gather(watching, return_exceptions=True)
            screen.close()

    def _keys(self, machine: Machine) -> AbstractContextManager[Any]:
        from contextlib import nullcontext

        if not machine.consoles or not is_ours(0):
            return nullcontext()
        asks = machine.plan.powerdown_seconds > 0
        note(
            "console: Ctrl-] asks the guest to power down, and again stops it at once"
            if asks
            else "console: Ctrl-] stops the machine"
        )
        return Keys(machine.console, 0, lambda: self._end(signal.SIGTERM))

    async def _wait(self, machine: Machine, screen: Screen) -> int:
        """The exit status, once there is a reason to end and the machine has ended."""
        until = None
        if self.options.until is not None:
            limit = self.options.timeout or _UNTIL_SECONDS
            until = asyncio.ensure_future(machine.console.wait_for(self.options.until, limit))
        try:
            ended = until if until is not None else machine.wait()
            await self._first(ended, self._stop.wait(), screen.lost.wait())
            seen = until is not None and until.done() and until.exception() is None
            if seen or self._stop.is_set():
                await self._stop_machine(machine, kindly=seen or self._kindly)
                return self._status
            if screen.lost.is_set():
                await machine.stop()
                return 0
            return await self._ended(machine, until)
        finally:
            if until is not None:
                until.cancel()
                await asyncio.gather(until, return_exceptions=True)

    async def _ended(self, machine: Machine, until: asyncio.Future[str] | None) -> int:
        """QEMU ended by itself, or the pattern did not come."""
        missed = until.exception() if until is not None else None
        if missed is not None and machine.process.poll() is None:
            # It still runs, unless its console was closed because it is about to end.
            try:
                await machine.wait(0.5 if machine.console.closed else 0.0)
            except TimeoutError:
                await machine.stop()
                raise missed from None
        code = await machine.wait()
        if code != 0:
            raise QEMUError(
                f"{machine.plan.name} ended: {describe_exit(code)}",
                evidence={"qemu_stderr": machine.process.stderr.lines, "returncode": code},
            )
        if missed is not None:
            raise missed
        return 0

    async def _stop_machine(self, machine: Machine, *, kindly: bool) -> None:
        """The ladder; from the second call of `_end` on without asking the guest."""
        wants = kindly and machine.plan.powerdown_seconds > 0
        if wants and sys.stderr.isatty():
            # The terminal may be raw.
            note(f"\r\nasking the guest to power down ({machine.plan.powerdown_seconds} s)\r")
        stopping = asyncio.ensure_future(machine.stop(powerdown=kindly))
        await self._first(stopping, self._now.wait())
        if not stopping.done():
            stopping.cancel()
            await asyncio.gather(stopping, return_exceptions=True)
            await machine.stop()
            return
        await stopping

    @staticmethod
    async def _first(*things: asyncio.Future[Any] | Coroutine[Any, Any, Any]) -> None:
        """Wait until one of them is done; what was made for it here ends."""
        tasks = [asyncio.ensure_future(thing) for thing in things]
        own = [t for t, thing in zip(tasks, things, strict=True) if t is not thing]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in own:
                task.cancel()
            await asyncio.gather(*own, return_exceptions=True)
