"""A user's own file of what `fleet` would else be told each time: the broker, and who we are."""

from __future__ import annotations

import os

from launcher.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

#: Keys of the file; each stands for the option of that name.
KEYS = ("broker", "username", "password-file", "ca-file", "cert-file", "key-file", "client")


def path() -> tuple[str, bool]:
    """Where the file is, and whether it must be there because the user has named it."""
    named = os.environ.get("QEMU_LAUNCHER_BROKER_FILE", "")
    if named:
        return named, True
    base = os.environ.get("XDG_CONFIG_HOME", "")
    if not base.startswith("/"):
        base = os.path.expanduser("~/.config")
    return os.path.join(base, "qemu-launcher", "broker.yaml"), False


def fill(options: argparse.Namespace) -> None:
    """Give options that were not given what the file says; without a file do nothing.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    file, needed = path()
    if not needed and not os.path.exists(file):
        return
    from launcher.files import read_yaml
    from launcher.nodes import Scalar

    for key, node in read_yaml(file).items.items():
        if key not in KEYS:
            hint = f"known are {', '.join(KEYS)}"
            if key == "password":
                hint = "`password-file` names a file that holds it"
            raise InputError(f"there is no {key!r}", place=node.place, hint=hint, code="member")
        if not isinstance(node, Scalar) or node.is_null:
            raise InputError(f"{key} must be a text", place=node.place, code="type")
        name = key.replace("-", "_")
        if not getattr(options, name):
            setattr(options, name, node.text)
