"""Starting machines from programs without asyncio."""

from __future__ import annotations

from launcher.sync.machine import Machine
from launcher.sync.thread import THREAD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from typing import Any

    from launcher import machine
    from launcher.locking.start import Locking
    from launcher.sync.thread import LoopThread


def launch(
    profile: str | Mapping[str, Any],
    *,
    platform: str = "",
    qemu: str = "",
    settings: tuple[str, ...] = (),
    verify: str | None = None,
    locked: bool | str = False,
) -> Machine:
    """Start a machine and prove it; `with` ends it, as `close` does.

    Takes and raises what `launcher.launch` does.
    """
    from launcher.start import launched

    return adopt(
        launched(
            profile,
            platform=platform,
            qemu=qemu,
            settings=settings,
            verify=verify,
            locked=locked,
        )
    )


def incoming(
    profile: str | Mapping[str, Any],
    *,
    platform: str = "",
    qemu: str = "",
    settings: tuple[str, ...] = (),
    uuid: str = "",
    folder: str = "",
) -> Machine:
    """Start a machine that waits for a guest to migrate into it.

    Takes and raises what `launch` does, and the last two of `launcher.incoming.incoming`.
    """

    async def starting() -> machine.Machine:
        from launcher.incoming import incoming as waiting
        from launcher.prepare import Request, load, prepare

        request = Request(profile, platform, qemu, tuple(settings))
        return await waiting(await prepare(load(request)), uuid=uuid, folder=folder)

    return adopt(starting())


def adopt(starting: Coroutine[Any, Any, machine.Machine], thread: LoopThread = THREAD) -> Machine:
    """The machine that `starting` gives, ended with the interpreter at the latest."""
    made: list[machine.Machine] = []

    async def keeping() -> Machine:
        inner = await starting
        made.append(inner)
        thread.at_end(inner, inner.close)
        return Machine(inner, thread)

    try:
        return thread.call(keeping())
    except BaseException:
        for inner in made:  # it had started when the wait for it was interrupted
            thread.call(inner.close())
            thread.not_at_end(inner)
        raise


def lock(
    profile: str | Mapping[str, Any],
    *,
    platform: str = "",
    qemu: str = "",
    settings: tuple[str, ...] = (),
    output: str = "",
) -> Locking:
    """Write the lock file of a profile; the guest does not run.

    Takes, gives and raises what `launcher.lock` does.
    """
    from launcher.locking.start import lock as locking

    return THREAD.call(
        locking(profile, platform=platform, qemu=qemu, settings=settings, output=output)
    )
