"""A guest's state into a file and out of one: half a migration each."""

from __future__ import annotations

from contextlib import suppress

from launcher.errors import LauncherError
from launcher.migrate.carry import Carrying
from launcher.migrate.model import Migration, MigrationError
from launcher.migrate.transport import Transport, Via

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.migrate.model import End, Limits, Progress


async def write_state(
    source: End, path: str, limits: Limits, on_progress: Callable[[Progress], None] | None
) -> None:
    """Write the guest of `source` to a file. It is stopped then, and was not ended.

    Raises:
        MigrationError: it could not; the source has let go of it.
    """
    stream = Carrying(source, source, Transport(Via("file", path)), limits, on_progress)
    try:
        await stream.write()
    except LauncherError as error:
        raise _failure(error, stream, f"{source.plan.name} was not saved") from error
    finally:
        stream.stop_watching()
        if stream.begun and stream.here.status != "completed":
            with suppress(LauncherError):
                await source.monitor.execute("migrate_cancel")


async def load_state(destination: End, path: str, limits: Limits) -> None:
    """Load a file into a machine that waits. Its guest is paused then.

    Raises:
        MigrationError: QEMU could not.
    """
    transport = Transport(Via("file", path))
    stream = Carrying(destination, destination, transport, limits, None)
    try:
        await stream.read()
    except LauncherError as error:
        raise _failure(error, stream, f"{destination.plan.name} was not restored") from error
    finally:
        stream.stop_watching()


def _failure(error: LauncherError, stream: Carrying, what: str) -> MigrationError:
    words = stream.there.words() or stream.here.words()
    return MigrationError(
        f"{what}: {error.message}",
        migration=Migration("failed", str(stream.transport.via), progress=stream.progress),
        hint=error.hint,
        evidence={"qemu_stderr": list(words), **error.evidence},
    )
