"""Lock files on disk: where they stand, and what one says of a request. Disk, read only."""

from __future__ import annotations

import os

from launcher.cache import cache_folder
from launcher.errors import InputError, Place
from launcher.files import read_yaml
from launcher.locks.given import Home, given
from launcher.locks.model import AGAIN, HEAD, read_lock
from launcher.locks.replay import check_profile
from launcher.nodes import Mapping as NodeMapping
from launcher.nodes import from_python
from launcher.plan.decide import HIDDEN
from launcher.plan.locked import with_lock
from launcher.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, TypeVar

    from launcher.locks.model import Lock
    from launcher.profiles import Profile

    #: A `launcher.prepare.Request`, which stands on a floor above.
    _R = TypeVar("_R", bound=Any)

#: Bounds of a lock file: it holds a few lines for each value of a profile.
_MAX_BYTES = 8 * 1024 * 1024
_MAX_NODES = 500_000

_ENDING = ".lock.yaml"


def lock_path(profile: str | Mapping[str, Any]) -> str:
    """The lock file of a profile, beside it: `web.lock.yaml` for `web.yaml`.

    Raises:
        InputError: that is a lock file itself, or the profile is no file.
    """
    if not isinstance(profile, str):
        words = "a profile that is no file has no lock file beside it"
        raise InputError(words, hint="say where the lock file is", code="lock")
    if profile.endswith(_ENDING):
        raise InputError(
            "is a lock file, not a profile",
            place=Place(profile),
            hint=f"name the profile that was locked: {profile.removesuffix(_ENDING)}.yaml",
            code="lock",
        )
    stem, ending = os.path.splitext(profile)
    return f"{stem if ending in ('.yaml', '.yml') else profile}{_ENDING}"


def check_replaceable(path: str) -> None:
    """See that a lock file may be written to `path`.

    Raises:
        InputError: there is a file of another kind: the profile itself, by a slip of the keys.
    """
    if not os.path.isfile(path):
        return  # nothing there, or who writes says what is wrong
    head = HEAD.partition("\n")[0].encode()
    try:
        with open(path, "rb") as file:
            if file.read(len(head)) in (b"", head):
                return
    except OSError:
        return  # who writes says what is wrong
    raise InputError(
        "is not a lock file, and one would be written over it",
        place=Place(path),
        hint="name another file, or remove this one",
        code="lock",
    )


def home_of(path: str) -> Home:
    """Where the lock file at `path` stands."""
    return Home(os.path.dirname(os.path.abspath(path)), cache_folder())


def load_lock(path: str) -> Lock:
    """The lock file at `path`.

    Raises:
        InputError: there is none, or something in it is wrong.
    """
    try:
        return read_lock(read_yaml(path, limit=_MAX_BYTES, nodes=_MAX_NODES))
    except InputError as error:
        if error.code == "file":
            words = f"the lock file cannot be read: it {_worded(error.message)}"
            hint = "`qemu-launcher lock PROFILE` writes one beside the profile"
            raise InputError(words, place=error.place, hint=hint, code="lock") from None
        if error.hint:
            raise
        words, place = error.message, error.place
        raise InputError(words, place=place, hint=AGAIN, code=error.code) from None


def opened(request: _R) -> tuple[Lock, _R]:
    """The lock file of a request, and the request as it was when the profile was locked.

    Raises:
        InputError: there is none, something in it is wrong, or the request does not fit it.
    """
    if request.lock_sent is None:
        lock = load_lock(request.lock)
    else:
        tree = from_python(dict(request.lock_sent), Place(request.lock))
        assert isinstance(tree, NodeMapping)
        lock = read_lock(tree)
    platform, settings = replayed(lock, request.platform, request.settings)
    return lock, replace(request, platform=platform, settings=settings)


def _worded(message: str) -> str:
    return "does not exist" if message.startswith("there is no") else message


def replayed(lock: Lock, platform: str, settings: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """`--platform` and `--set` as they were when it was locked, with those of now behind them.

    Raises:
        InputError: another platform is asked for, or a secret must be given again.
    """
    request = lock.document.get("request", {})
    name = lock.document["platform"]["name"]
    locked = request.get("platform", "")
    if platform and platform not in (name, locked):
        raise InputError(
            f"is a lock of platform {name}, and --platform asks for {platform}",
            place=lock.place("platform", "name"),
            hint="leave --platform out, or lock the profile for that platform",
            code="lock",
        )
    if "/" in locked or locked.endswith((".yaml", ".yml")):
        # As it was seen from the lock file; a platform of the command line is seen from here.
        locked = os.path.join(os.path.dirname(lock.file), locked)
    kept = []
    again = {text.partition("=")[0] for text in settings}
    for path, text in request.get("settings", {}).items():
        if text != HIDDEN:
            kept.append(f"{path}={text}")
        elif path not in again:
            raise InputError(
                f"{path} is a secret, which a lock file does not hold",
                place=lock.place("request", "settings", path),
                hint=f"give it again with --set {path}=…",
                code="lock",
            )
    return platform or locked, (*kept, *settings)


def locked_profile(lock: Lock, profile: Profile) -> Profile:
    """`profile` with what was decided for it when it was locked.

    Raises:
        InputErrors: it is not the profile that was locked any more.
    """
    check_profile(lock, profile, given(profile, home_of(lock.file)))
    return with_lock(profile, lock.locked())
