"""What a lock file holds of a machine that was read back."""

from __future__ import annotations

import os

from launcher.errors import Place
from launcher.locks.given import Home, given, texts
from launcher.locks.model import (
    digest,
    machine_section,
    omission_row,
    sealed,
    shown_settings,
    value_rows,
)
from launcher.prepare import host_facts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.locking.start import Observed
    from launcher.plan import Plan
    from launcher.prepare import Loaded, Prepared


def document(seen: Observed, home: Home) -> dict[str, Any]:
    """All that a lock file says.

    Args:
        seen: a machine as it was read back.
        home: where the file will stand.
    """
    prepared, plan, loaded = seen.prepared, seen.report.plan, seen.prepared.loaded
    secrets = [want.content for want in plan.wants if want.kind == "secret"]
    parts = {
        **_sources(prepared, home, secrets),
        "host": host_section(loaded),
        "machine": chosen(loaded, plan),
        "values": _told_first(loaded, value_rows(seen.report, home, seen.runtime)),
        "omitted": omitted_rows(prepared),
        "migration": seen.migration,
        "given": texts(given(loaded.profile, home)),
    }
    needed = ("values", "given")
    return sealed({key: part for key, part in parts.items() if part or key in needed})


def _told_first(loaded: Loaded, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a machine that was itself started from a lock: who set each value at first.

    What the profile gives it gives again, and is no value of the lock's: a path of its, for one,
    is seen from the profile.
    """
    if loaded.lock is None:
        return rows
    first = {key: value.origin for key, value in loaded.lock.values().items()}
    for row in rows:
        key = (row["family"], row["id"], row["property"])
        if row["origin"].startswith("lock ") and key in first:
            row["origin"] = first[key]
    return rows


def omitted_rows(prepared: Prepared) -> list[dict[str, Any]]:
    """What the platform asks for and was not written, and whether the binary behaves so."""
    from launcher.plan.locked import as_pinned
    from launcher.platforms import Omitted, Written, locked_pin, parse_qemu_version, spell

    plan, catalogue = prepared.plan, prepared.loaded.catalogue
    version = parse_qemu_version(plan.version)
    rows = []
    for one in plan.omitted:
        key = (one.family, one.type, one.property)
        pin = locked_pin(catalogue, key, as_pinned(one.value), Place(""))
        spelled = spell(pin, version)
        # A build without the property behaves as releases did that did not know it yet.
        older = isinstance(spelled, Written) and pin.value == pin.oldest_was
        rows.append(omission_row(one, isinstance(spelled, Omitted) or older))
    return rows


def _sources(prepared: Prepared, home: Home, secrets: list[str]) -> dict[str, Any]:
    loaded = prepared.loaded
    request = loaded.request
    profile = os.path.abspath(loaded.profile_file)
    is_file = isinstance(request.profile, str)
    asked = {
        "platform": home.named(request.platform, "--platform"),
        "settings": shown_settings(request.settings, secrets),
    }
    return {
        "profile": {
            "name": loaded.profile.name,
            "file": os.path.relpath(profile, home.folder) if is_file else loaded.profile_file,
            "digest": digest(texts(given(loaded.profile, home))),
        },
        "request": {key: part for key, part in asked.items() if part},
        "platform": platform_section(loaded),
        "qemu": qemu_section(prepared),
    }


def platform_section(loaded: Loaded) -> dict[str, Any]:
    """The platform's name, and a digest of what it gives the types that the profile uses."""
    return {"name": loaded.platform.name, "digest": digest(_pins(loaded))}


def _pins(loaded: Loaded) -> dict[str, str]:
    from launcher.platforms import resolve

    tree = texts(given(loaded.profile, Home("", "")))
    words = set(_leaves(tree)) | {"migration", "kvm", "tcg"}
    return {
        " ".join(key): pin.value
        for key, pin in resolve(loaded.catalogue, loaded.platform).items()
        if pin.type in words
    }


def _leaves(tree: Any) -> list[str]:
    if isinstance(tree, dict):
        return [leaf for item in tree.values() for leaf in _leaves(item)]
    if isinstance(tree, list):
        return [leaf for item in tree for leaf in _leaves(item)]
    return [str(tree)]


def qemu_section(prepared: Prepared) -> dict[str, Any]:
    """What identifies the binary: not its path, which is another on another host."""
    from launcher.host.build_id import build_id

    plan = prepared.plan
    told = build_id(plan.binary)
    return {
        "tool": plan.tool,
        "binary": os.path.basename(plan.binary),
        "version": plan.version,
        "build": plan.build,
        **({"build-id": told} if told else {}),
        "answers": digest(_answers(prepared)),
    }


#: What a binary says of itself, whatever the machine: command → what names an entry.
_TOLD = {
    "query-qmp-schema": "name",
    "query-machines": "name",
    "query-command-line-options": "option",
}


def _answers(prepared: Prepared) -> dict[str, Any]:
    """The answers that tell one build from another, in an order of their own.

    The names of schema types are numbers without meaning, but the same in every run of one build.
    """
    replies = prepared.capabilities.replies
    found: dict[str, Any] = {"query-version": replies.get("query-version")}
    for command, name in _TOLD.items():
        answer = replies.get(command) or ()
        entries = answer.values() if isinstance(answer, dict) else answer
        found[command] = sorted(
            (entry for entry in entries if name in entry), key=lambda entry: str(entry[name])
        )
    found["qom-list-types"] = sorted(replies.get("qom-list-types") or ())
    return found


def host_section(loaded: Loaded) -> dict[str, Any]:
    """The facts of this host that the plan asked for, without their figures: those vary."""
    from launcher.plan import needed_features

    asked = needed_features(loaded.profile, loaded.catalogue, loaded.platform)
    facts = host_facts(asked)
    return {name: facts.features[name][0] for name in asked}


def chosen(loaded: Loaded, plan: Plan) -> dict[str, Any]:
    """What an alias and a list of accelerators became; nothing for a tool without a machine."""
    if not plan.machine:
        return {}
    cpu = loaded.profile.cpu
    words = {
        name: str(getattr(node, "text", ""))
        for name, node in (
            ("machine", loaded.profile.machine.get("type")),
            ("cpu", cpu.get("model") if cpu is not None else None),
        )
    }
    return machine_section(plan, words["machine"], words["cpu"])
