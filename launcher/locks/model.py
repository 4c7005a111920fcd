"""A lock file as a value: made of a report, written as text, read back from a tree. Pure."""

from __future__ import annotations

import hashlib
from contextlib import suppress

from launcher.errors import InputError, InputErrors, Place
from launcher.locks.emit import emit
from launcher.locks.given import is_path
from launcher.locks.shape import FORMAT, LOCK, SHAPE
from launcher.nodes import Mapping, Scalar, Sequence
from launcher.plan.decide import HIDDEN
from launcher.plan.locked import Locked, LockedValue
from launcher.qapi import Checker, format_json
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.locks.given import Home
    from launcher.nodes import Node
    from launcher.plan import Omission, Origin, Plan, Value
    from launcher.report import Report

#: A text of so many characters that is part of another one is no accident.
_TELLING = 4

#: What every lock file begins with.
HEAD = """\
# Written by `qemu-launcher lock`, replayed by `qemu-launcher run --locked`; docs/lock.md.
# Not to be edited: change the profile and lock it again.
"""


@record
class Lock:
    """One lock file.

    `document` is what it says, in Python's types; `tree` is the same with the place of each part.
    """

    file: str
    document: dict[str, Any]
    tree: Mapping

    def place(self, *path: str) -> Place:
        """Where the key at the end of `path` stands; where its nearest parent does if it does not.

        Args:
            path: keys, from the outermost on.
        """
        node: Node = self.tree
        found = node.place
        for key in path:
            if not isinstance(node, Mapping) or key not in node.items:
                break
            found = node.key_place(key)
            node = node.items[key]
        return found

    @property
    def given(self) -> Mapping:
        """What the profile resolved to."""
        node = self.tree.items["given"]
        assert isinstance(node, Mapping)
        return node

    def values(self) -> dict[tuple[str, str, str], LockedValue]:
        """The values by (family, id, property), with those that the binary had by itself."""
        found = {}
        for part in ("omitted", "values"):
            rows = self.tree.get(part)
            for row, node in zip(
                self.document.get(part, ()),
                rows.items if isinstance(rows, Sequence) else (),
                strict=True,
            ):
                if row.get("behaves", True):
                    value = _locked_value(row, node.place)
                    found[value.key] = value
        return found

    def locked(self) -> Locked:
        """What of it decides a plan."""
        name = self.file.rpartition("/")[2]
        machine = self.document.get("machine", {})
        place = self.place("machine", "type")
        return Locked(name, self.values(), machine.get("type", ""), place, machine.get("accel", ""))


def _locked_value(row: dict[str, Any], place: Place) -> LockedValue:
    return LockedValue(
        family=row["family"],
        type=row["type"],
        id=row["id"],
        property=row["property"],
        value=row["value"],
        origin=row["origin"],
        place=place,
        written=row.get("written", row["value"]),
        spelled=row.get("spelled", row["property"]),
        was_read="observed" in row,
        observed=row.get("observed"),
    )


# -- writing --------------------------------------------------------------------------------------


def digest(value: Any) -> str:
    """A digest of what `value` says, whichever way it is written."""
    return f"sha256:{hashlib.sha256(format_json(value).encode()).hexdigest()}"


def sealed(document: dict[str, Any]) -> dict[str, Any]:
    """`document` with its form and its digest in front."""
    return {"format": FORMAT, "digest": digest(document), **document}


def lock_text(document: dict[str, Any]) -> str:
    """The text of a lock file."""
    return HEAD + emit(document, ("values", "omitted"))


def value_rows(report: Report, home: Home, runtime: str) -> list[dict[str, Any]]:
    """One row for each value of a report, in the order of the plan.

    Args:
        report: of a machine that was started for this.
        home: where the lock file stands.
        runtime: that machine's runtime directory, which the next one will not have.
    """
    rows = []
    for one in report.judged:
        row = _value_row(one.value, home)
        if one.verdict == "unobservable":
            row["unobservable"] = one.reason
        else:
            row["observed"] = _portable(one.observed, one.value, home, runtime)
        rows.append(row)
    return rows


def plan_rows(plan: Plan, home: Home) -> list[dict[str, Any]]:
    """One row for each value of a plan; nothing was observed."""
    return [_value_row(value, home) for value in plan.values]


def _value_row(value: Value, home: Home) -> dict[str, Any]:
    row = {
        "family": value.family,
        "type": value.type,
        "id": value.id,
        "property": value.property,
        "value": _portable(value.value, value, home),
    }
    if value.written != value.value:
        row["written"] = _portable(value.written, value, home)
    if value.spelled != value.property:
        row["spelled"] = value.spelled
    row["origin"] = origin_text(value.origin)
    return row


def _portable(item: Any, value: Value, home: Home, runtime: str = "") -> Any:
    """What `value` holds, without what only this host or this start of the machine has."""
    if isinstance(item, str):
        if runtime:
            item = item.replace(runtime, "${runtime}")
        if not is_path(value.family, value.property):
            return home.text(item)
        place = value.origin.place
        return home.path(item, place.file if place is not None else "")
    if isinstance(item, (list, tuple)):
        return [_portable(part, value, home, runtime) for part in item]
    if isinstance(item, dict):
        return {key: _portable(part, value, home, runtime) for key, part in item.items()}
    return item


def shown_settings(settings: tuple[str, ...], secrets: list[str]) -> dict[str, str]:
    """`--set` by path, without those that hold a secret.

    Args:
        settings: `path=value` texts.
        secrets: the contents of the profile's secrets.
    """
    shown = {}
    for text in settings:
        path, _, value = text.partition("=")
        bare = value[1:-1] if value[:1] in ("'", '"') else value
        telling = any(bare == one or (len(one) >= _TELLING and one in value) for one in secrets)
        shown[path] = HIDDEN if telling else value
    return shown


def omission_row(omission: Omission, behaves: bool) -> dict[str, Any]:
    """One row for a value that was not written; does the binary behave so by itself?"""
    return {
        "family": omission.family,
        "type": omission.type,
        "id": omission.id,
        "property": omission.property,
        "value": omission.value,
        "origin": origin_text(omission.origin),
        "reason": omission.reason,
        "behaves": behaves,
    }


def origin_text(origin: Origin) -> str:
    """Who set a value, without the line: a comment more in the profile changes no lock."""
    return f"{origin.kind} {origin.detail}".rstrip()


def machine_section(plan: Plan, asked: str, cpu: str) -> dict[str, Any]:
    """What an alias and a list of accelerators became."""
    section = {"type": plan.machine, "asked": asked, "accel": plan.accel}
    return {**section, "cpu": cpu} if cpu else section


# -- reading --------------------------------------------------------------------------------------

#: What helps against a lock file that cannot be read.
AGAIN = "lock the profile again: `qemu-launcher lock PROFILE`"


def read_lock(tree: Mapping) -> Lock:
    """The lock that a file holds.

    Raises:
        InputError: it is no lock file, is of another form, was edited, or part of it is wrong.
    """
    file = tree.place.file
    _check_form(tree)
    checker = Checker(SHAPE)
    checker.check(LOCK, tree, "lock")
    if checker.mistakes:
        raise InputErrors(
            InputError(m.message, place=m.place, hint=AGAIN, code="lock") for m in checker.mistakes
        )
    document = {key: python_value(item) for key, item in tree.items.items()}
    body = {key: item for key, item in document.items() if key not in ("format", "digest")}
    if document["digest"] != digest(body):
        raise InputError(
            "the lock file was edited after it was written: it is not what its digest says",
            place=tree.key_place("digest"),
            hint=f"restore it, or {AGAIN}",
            code="lock",
        )
    return Lock(file, document, tree)


def _check_form(tree: Mapping) -> None:
    form = tree.get("format")
    if form is None:
        words = "is not a lock file: it has no 'format'"
        raise InputError(words, place=tree.place, hint=AGAIN, code="lock")
    if not isinstance(form, Scalar) or form.text != str(FORMAT):
        text = f"format {form.text}" if isinstance(form, Scalar) else "another format"
        raise InputError(
            f"is a lock file of {text}, and this launcher reads format {FORMAT}",
            place=form.place,
            hint=f"use a launcher that knows it, or {AGAIN}",
            code="lock",
        )


def python_value(node: Node) -> Any:
    """What a node of a lock file says: the inverse of `emit`."""
    if isinstance(node, Mapping):
        return {key: python_value(item) for key, item in node.items.items()}
    if isinstance(node, Sequence):
        return [python_value(item) for item in node.items]
    if not node.plain:
        return node.text
    words = {"null": None, "true": True, "false": False}
    if node.text in words:
        return words[node.text]
    return _number(node.text)


def _number(text: str) -> Any:
    """A number that is written as `emit` writes it; all else is text, `inf` included."""
    if text[-1:].isdigit():
        for kind in (int, float):
            with suppress(ValueError):
                if repr(number := kind(text)) == text:
                    return number
    return text
