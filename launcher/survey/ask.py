"""Throw-away QEMUs of one binary: questions in, answers out, and deaths survived."""

from __future__ import annotations

import os
import re
import shutil
import struct
import tempfile

from launcher.errors import CommandError, MonitorError, QEMUError
from launcher.probe import ask_throwaway
from launcher.survey.kits import SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from types import TracebackType
    from typing import Any

    from launcher.monitor import Monitor

    Questions = Callable[[Monitor], Awaitable[Any]]

#: What stands for the words of a QEMU that a question ended.
DIED = "the question ended this QEMU"

_QCOW2_CLUSTER = 1 << 16


class Asker:
    """One binary, and a temporary folder with the files that its questions name.

    Args:
        binary: absolute path.
        replies: what the probe knows of it.
    """

    def __init__(self, binary: str, replies: dict[str, Any]) -> None:
        self.binary = binary
        self.replies = replies
        self.system = replies["tool"] == "qemu-system"
        self.folder = ""
        self._images = 0

    def __enter__(self) -> Asker:
        self.folder = tempfile.mkdtemp(prefix="qemu-launcher-survey-")
        self._write("acl", b'{"rules": [], "policy": "deny"}')
        self._write("disk", bytes(SIZE))
        self._write("keys.psk", b"survey:9f5c0e21a7d84b36\n")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _image(self, kind: str) -> str:
        """A file of its own for each node: QEMU locks the images that it opens."""
        self._images += 1
        name = f"{kind}-{self._images}"
        self._write(name, empty_qcow2() if kind == "qcow2" else bytes(SIZE))
        return os.path.join(self.folder, name)

    def _write(self, name: str, data: bytes) -> None:
        with open(os.path.join(self.folder, name), "wb") as file:
            file.write(data)

    async def ask(
        self, questions: Questions, words: Iterable[str] = (), machine: str = "none"
    ) -> Any:
        """Put `questions` to a new QEMU.

        Raises:
            LaunchError: it did not start.
            QEMUError: it went away meanwhile.
        """

        async def put(monitor: Monitor, _about: object, _tool: str) -> Any:
            return await questions(monitor)

        accel = ("-accel", "tcg") if self.has_tcg else ()
        return await ask_throwaway(
            self.binary, put, (), machine=machine, words=(*accel, *(self.fill(w) for w in words))
        )

    @property
    def has_tcg(self) -> bool:
        """Whether the binary can run without KVM, which is what all hosts have in common."""
        return self.system and "tcg-accel" in self.replies["qom-list-types"]

    def fill(self, value: Any, chardev: str = "") -> Any:
        """A kit's value with its placeholders filled in."""
        if isinstance(value, str):
            if value in ("@qcow2@", "@disk@"):
                return {"driver": "file", "filename": self._image(value.strip("@"))}
            return value.replace("@folder@", self.folder).replace("@chardev@", chardev)
        if isinstance(value, dict):
            return {name: self.fill(one, chardev) for name, one in value.items()}
        return [self.fill(one, chardev) for one in value] if isinstance(value, list) else value

    def plain(self, value: Any) -> Any:
        """What QEMU said, without the name of this run's folder."""
        if isinstance(value, str):
            return value.replace(self.folder, "@folder@")
        if isinstance(value, dict):
            return {name: self.plain(one) for name, one in value.items()}
        return [self.plain(one) for one in value] if isinstance(value, list) else value

    def words_of(self, error: QEMUError) -> str:
        """QEMU's own words for why something cannot be had."""
        if isinstance(error, CommandError):
            return str(self.plain(error.evidence.get("desc") or error.message))
        if isinstance(error, MonitorError) or error.evidence.get("returncode") is not None:
            # Its last words may or may not have arrived: they are not kept.
            return DIED
        said = [line for line in error.evidence.get("qemu_stderr") or () if line.strip()]
        words = said[0] if said else error.message
        # The program's own name says nothing about what was asked.
        return re.sub(r"^\S*qemu-[\w-]+: ", "", str(self.plain(words)))


def empty_qcow2() -> bytes:
    """An empty qcow2 image of version 2 (QEMU: docs/interop/qcow2.txt), so that no tool is needed.

    Clusters: header, refcount table, refcount block, L1 table.
    """
    cluster = _QCOW2_CLUSTER
    header = struct.pack(
        ">IIQIIQIIQQIIQ",
        *(0x514649FB, 2, 0, 0, 16, SIZE, 0, 1, 3 * cluster, cluster, 1, 0, 0),
    )
    table = struct.pack(">Q", 2 * cluster)
    counts = struct.pack(">4H", 1, 1, 1, 1)
    parts = (header, table, counts, b"")
    return b"".join(part.ljust(cluster, b"\0") for part in parts)
