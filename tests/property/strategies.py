"""What Hypothesis draws from: hostile text, YAML trees, and profiles that are nearly right."""

from __future__ import annotations

import json
import os
import re
from functools import cache

from hypothesis import strategies as st

from launcher.profiles import PROFILE, SHAPE
from tests.support.records import ROOT

#: Text as a user might paste it; the characters that mean something to QEMU or YAML come often.
hostile_text = st.text(
    st.one_of(
        st.sampled_from(",=.:{}[]\"'\\$ %@`|&*!#~-/<>"),
        st.characters(exclude_categories=("Cs", "Cc")),
    ),
    max_size=30,
)
#: The same with control characters and line breaks, for what never comes from a profile.
any_text = st.one_of(hostile_text, st.text(st.characters(exclude_categories=("Cs",)), max_size=30))

keys = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=8)

#: Values as JSON has them.
json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        any_text,
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(any_text, inner, max_size=4)
    ),
    max_leaves=12,
)


class Plain(str):
    """Text to be written without quotes."""

    __slots__ = ()


def write_yaml(value: object) -> str:
    """Flow style YAML; every text but `Plain` is quoted."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)}: {write_yaml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(write_yaml, value)) + "]"
    if isinstance(value, Plain):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def _key(key: str) -> str:
    return str(key) if isinstance(key, Plain) else json.dumps(key, ensure_ascii=False)


def write_file(profile: dict) -> str:
    """A profile as a file: one top-level key a line."""
    return "".join(f"{_key(key)}: {write_yaml(value)}\n" for key, value in profile.items())


_WORDS = [
    *("on", "off", "true", "false", "null", "~", "yes", "auto", "none", "max", "console", "user"),
    *("0", "1", "2", "-1", "0x10", "0755", "1_000", "65536", "1e9", "9.10", ".5", "nan"),
    *("1G", "512M", "1GiB", "4GB", "1.5G", "1GB!", "99999999999999999999"),
    *("a.raw", "b.qcow2", "/dev/null"),
    *("io0", "ram", "ram0", "net0", "disk0", "c0", "d0", "root", "sev0"),
]
plain_words = st.sampled_from(_WORDS).map(Plain)
variables = st.sampled_from(["${runtime}/x", "${cache}", "${a}", "${a:-b}", "$${a}", "${", "${}"])
scalars = st.one_of(
    plain_words, plain_words, plain_words, hostile_text, variables, st.integers(), st.none()
)
junk = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(keys, plain_words), inner, max_size=3),
    ),
    max_leaves=8,
)

_KINDS = {
    "objects": (
        "qom-type",
        ["iothread", "memory-backend-ram", "memory-backend-memfd", "rng-random", "secret"],
        ["size", "share", "poll-max-ns", "poll-grow", "data", "filename", "prealloc-threads"],
    ),
    "netdevs": (
        "type",
        ["user", "tap", "socket", "stream", "hubport"],
        ["ifname", "script", "vhost", "restrict", "hostfwd", "hubid", "addr", "vnet_hdr"],
    ),
    "chardevs": (
        "backend",
        ["socket", "file", "null", "pty", "ringbuf"],
        ["path", "server", "wait", "reconnect-ms", "reconnect", "size", "append"],
    ),
    "blockdevs": (
        "driver",
        ["raw", "qcow2", "file", "null-co", "throttle", "nbd"],
        ["file", "filename", "size", "cache", "aio", "backing", "throttle-group", "server"],
    ),
    "devices": (
        "driver",
        ["virtio-blk-pci", "virtio-net-pci", "e1000", "ide-cd", "nvme", "virtio-rng-device"],
        ["drive", "netdev", "addr", "bus", "mac", "serial", "bootindex", "num-queues", "rng"],
    ),
    "audiodevs": ("driver", ["none", "pa", "alsa"], ["timer-period", "in", "out"]),
    "tpmdevs": ("type", ["emulator", "passthrough"], ["chardev", "path"]),
    "exports": ("type", ["nbd", "vhost-user-blk"], ["node-name", "name", "writable", "addr"]),
}


#: What makes sense for a member, mostly.
_USUAL = {
    **dict.fromkeys(("size", "l2-cache-size"), "64M"),
    **dict.fromkeys(("share", "vhost", "restrict", "server", "append", "writable"), "on"),
    **dict.fromkeys(("poll-max-ns", "poll-grow", "prealloc-threads", "hubid", "num-queues"), "2"),
    **dict.fromkeys(("data", "filename", "path", "serial", "name", "ifname"), "x"),
    **dict.fromkeys(("file", "drive", "node-name", "throttle-group", "backing"), "d0"),
    "netdev": "net0",
    "chardev": "c0",
    "rng": "ram0",
    "addr": "5",
    "reconnect-ms": "2000",
    "script": '"no"',
    "mac": '"52:54:00:12:34:56"',
    "bootindex": "1",
    "aio": "threads",
}


@st.composite
def entries(draw: st.DrawFn, section: str) -> dict:
    """One section: ids to entries that are nearly right."""
    tag, kinds, members = _KINDS[section]
    found = {}
    for key in draw(
        st.lists(st.sampled_from(["io0", "ram0", "net0", "c0", "d0", "x y"]), max_size=3)
    ):
        node: dict = {}
        if draw(st.integers(0, 9)):
            node[tag] = Plain(draw(st.sampled_from(kinds)))
        nested = st.dictionaries(st.sampled_from([tag, *members]), scalars, max_size=3)
        for name in draw(st.lists(st.sampled_from(members), unique=True, max_size=3)):
            right = name in _USUAL and draw(st.integers(0, 4))
            wrong = st.one_of(scalars, scalars, nested, junk)
            node[name] = Plain(_USUAL[name]) if right else draw(wrong)
        found[key] = node
    return found


_CHOICES: dict[str, st.SearchStrategy] = {
    "platform": st.sampled_from(["native", "debian-11", "debian-12", "debian-13", "qemu-8.2", "x"]),
    "machine": st.one_of(
        st.sampled_from(["microvm", "pc-q35-5.2", "pc-i440fx-5.2", "q35", "none", "pc-q35-11.1"]),
        st.dictionaries(st.sampled_from(["type", "acpi", "memory-backend", "x"]), scalars),
    ),
    "accel": st.one_of(
        st.sampled_from(["kvm", "tcg"]).map(Plain),
        st.lists(st.sampled_from(["kvm", "tcg", "hvf", "x"]), max_size=3),
        st.dictionaries(st.sampled_from(["accel", "thread", "tb-size"]), scalars),
    ),
    "tool": st.sampled_from(["qemu-system", "qemu-storage-daemon"]),
    "memory": st.one_of(
        scalars, st.dictionaries(st.sampled_from(["size", "slots", "share", "type"]), scalars)
    ),
    "smp": st.one_of(scalars, st.dictionaries(st.sampled_from(["cpus", "cores", "x"]), scalars)),
    "cpu": st.one_of(scalars, st.dictionaries(st.sampled_from(["model", "pmu"]), scalars)),
    "disk": st.one_of(
        scalars,
        st.lists(
            st.dictionaries(st.sampled_from(["file", "format", "id", "cache", "serial"]), scalars),
            max_size=2,
        ),
    ),
    "vars": st.dictionaries(st.sampled_from(["a", "b"]), scalars),
    "extends": st.one_of(st.just("base.yaml"), st.just(["base.yaml", "fuzz.yaml"]), junk),
    "migration": st.dictionaries(
        st.sampled_from(["capabilities", "parameters", "properties", "x"]),
        st.one_of(
            st.dictionaries(
                st.sampled_from(
                    ["multifd", "multifd-channels", "store-global-state", "tls-creds", "xbzrle"]
                ),
                st.one_of(scalars, junk),
                max_size=3,
            ),
            junk,
        ),
    ),
}


@st.composite
def profiles(draw: st.DrawFn) -> str:
    """The text of a profile that is nearly right: most keys and kinds exist."""
    names = [member["name"] for member in SHAPE[PROFILE]["members"]]
    profile: dict = {}
    if draw(st.integers(0, 19)):
        machine = draw(st.sampled_from(["microvm", "pc-q35-5.2", "q35", "none"]))
        profile = {Plain("platform"): "debian-12", Plain("machine"): machine, Plain("accel"): "tcg"}
    for key in draw(st.lists(st.sampled_from(names), unique=True, max_size=4)):
        usual = entries(key) if key in _KINDS else _CHOICES.get(key, scalars)
        profile[Plain(key)] = draw(usual if draw(st.integers(0, 9)) else junk)
    return write_file(profile)


@cache
def _samples() -> list[str]:
    texts = []
    for folder in ("profiles", "tests/golden/profiles", "tests/golden/errors"):
        for name in sorted(os.listdir(os.path.join(ROOT, folder))):
            if name.endswith(".yaml"):
                with open(os.path.join(ROOT, folder, name), encoding="utf-8") as file:
                    text = file.read()
                if 0 < len(text) < 4000:
                    texts.append(text)
    return texts


@st.composite
def damaged_profiles(draw: st.DrawFn) -> str:
    """A real profile, or one with a mistake, cut and pasted at a few places."""
    text = draw(st.sampled_from(_samples()))
    if draw(st.booleans()):
        # One word for another: still YAML, and often still a profile.
        words = list(re.finditer(r"[\w./-]+", text))
        for word in sorted(
            draw(st.lists(st.sampled_from(words), min_size=1, max_size=2)), key=lambda w: -w.start()
        ):
            text = text[: word.start()] + draw(plain_words) + text[word.end() :]
        return text
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 20)))
        paste = draw(
            st.one_of(
                st.just(""),
                any_text,
                st.sampled_from(
                    ["\n", "\t", ": ", "- ", "{", "]", "&a ", "*a", "<<: ", "!x ", "|\n"]
                ),
                plain_words,
            )
        )
        text = text[:start] + paste + text[end:]
    return text
