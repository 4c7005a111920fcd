"""Plans that were made before and would be made the same again. Disk.

A plan follows from the request, the files that it names, the launcher's own files, the binary's
answers and a few facts of this host, and from nothing else. A kept plan is good when every one of
them is as it was; looking at all of that costs a tenth of planning again, which is what lets
`run` spawn QEMU before the launcher has imported most of itself.
"""

from __future__ import annotations

import os
import time

from launcher.cache import cache_folder, identity, read_own, short_name, write_own
from launcher.flat import flatten, restore
from launcher.plan.model import Plan
from launcher.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from launcher.plan import HostFacts

    #: what was asked for, and the launcher that was asked
    Key = tuple[str, str]

#: Raised when what is kept changes its form.
_FORM = 3
#: So many plans are kept, the newest.
_MOST = 128
#: A file that was written this short a time ago may be written again without a trace: the clock
#: that dates files counts in steps of up to 10 ms. Nanoseconds.
_SETTLED = 50_000_000

#: What a start does not need.
_LATER = ("values", "omitted")
#: The rooms that a plan comes from, besides single modules; faces and I/O do not change it.
_ROOMS = ("plan", "platforms", "profiles", "qapi")


class WaitingPlan(Plan):
    """A plan whose values are restored when they are looked at: QEMU runs by then."""

    def __getattr__(self, name: str) -> Any:
        if name not in _LATER:
            raise AttributeError(name)
        fields = self.__dict__
        fields.update(zip(_LATER, restore(fields["later"]), strict=True))
        return fields[name]


@record
class KeptPlan:
    """A plan, and what else it was made from than the request.

    Attributes:
        files: (path, identity) of every file of the user that was read.
        binary: absolute path of the binary; `named` is how the profile or the request named it.
        answers: the file that holds the binary's answers; its name tells the binary's state.
        asks_host: the plan is for this host, which was asked about the features `asked` and said
            `host`.
        own_uuid: the profile gives no UUID, so each start has a new one.
        head: the plan without what is only needed to verify it, and `later` is that, flattened.
    """

    files: tuple[tuple[str, str], ...]
    named: str
    binary: str
    answers: str
    asks_host: bool
    asked: tuple[str, ...]
    host: HostFacts
    own_uuid: bool
    head: Plan
    later: bytes

    def start(self, uuid: str) -> Plan:
        """The plan for one more start."""
        fields = {**self.head.__dict__, "later": self.later}
        for name in _LATER:
            del fields[name]
        if self.own_uuid:
            fields["uuid"] = uuid
            fields["options"] = tuple(
                replace(option, head=uuid) if option.name == "-uuid" else option
                for option in self.head.options
            )
        plan = WaitingPlan.__new__(WaitingPlan)
        plan.__dict__.update(fields)
        return plan


def key_of(*request: str) -> Key:
    """Everything that a plan follows from and that is known before any file of it is read."""
    here = (os.getcwd(), os.path.expanduser("~"), cache_folder())
    return "\0".join((*request, *here)), "\0".join((str(_FORM), *_launcher_files()))


def _launcher_files() -> Iterator[str]:
    """The launcher's own code and data, each as it is now."""
    root = os.path.dirname(os.path.abspath(__file__))
    folders = [root]
    for folder in folders:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name == "__pycache__":
                    continue
                if entry.name.endswith((".py", ".yaml")):
                    found = entry.stat()
                    yield f"{entry.name}:{found.st_size:x}.{found.st_mtime_ns:x}"
                elif entry.name in _ROOMS or (folder != root and entry.is_dir()):
                    folders.append(entry.path)


def _path(key: Key) -> str:
    return os.path.join(cache_folder(), "plan", f"{short_name(key[0])}.plan")


def recall(key: Key) -> KeptPlan | None:
    """The plan that was kept under `key`, if the user's files are still as they were."""
    found = restore(read_own(_path(key)))
    if not isinstance(found, tuple) or len(found) != 2 or found[0] != key:
        return None
    kept: KeptPlan = found[1]
    return kept if all(identity(path) == state for path, state in kept.files) else None


def keep(key: Key, plan: Plan, **circumstances: Any) -> None:
    """Keep a plan, unless it holds a secret or its files may not have settled yet.

    Args:
        key: what it was made for.
        plan: a fresh one.
        circumstances: the other fields of KeptPlan.
    """
    if any(want.kind == "secret" for want in plan.wants):
        return  # a secret is written to no file
    now = time.time_ns()
    try:
        if any(
            now - os.stat(path).st_mtime_ns < _SETTLED for path, _state in circumstances["files"]
        ):
            return
    except OSError:
        return
    path = _path(key)
    try:
        later = flatten(tuple(getattr(plan, name) for name in _LATER))
        head = replace(plan, **dict.fromkeys(_LATER, ()))
        data = flatten((key, KeptPlan(head=head, later=later, **circumstances)))
    except ValueError:
        return
    write_own(path, data)
    _forget_oldest(os.path.dirname(path))


def _forget_oldest(folder: str) -> None:
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.stat().st_mtime_ns, entry.path) for entry in entries)
        for _age, path in found[:-_MOST]:
            os.unlink(path)
    except OSError:
        return
