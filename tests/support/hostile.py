"""Commands that nobody well-meaning sends: (verb, payload)."""

from __future__ import annotations

import json
import random

WHOLE = {"id": "x", "profile": "web"}
VALUES: tuple[object, ...] = (
    *(None, True, 1, -1, 1e308, [], {}, "", "x" * 5000, "\u202e", "../../etc", "a/b", "${runtime}"),
    *({"id": "x"}, [["x"] * 5] * 5, "\u0000", "x\ny", "+", "#", "$share/a/b"),
)
NAMES = (
    *("../x", "a/b", "+", "#", "a\u0000b", "A", "-a", "x" * 64, "a b", "é", ".", "..", "/etc"),
    *("\u202ex", "a\u200b", "web\n", "$SYS", "~", "%u", "web.yaml", "state.json"),
)
#: A profile of the sender's own, and what makes it one that no host's policy lets through.
INLINE = {"name": "evil", "machine": "microvm", "accel": "tcg", "memory": "32MiB"}
OUTSIDE: tuple[dict[str, object], ...] = (
    {"extra-args": ["-incoming", "exec:id"]},
    {"extra-args": ["-incoming", "file:/etc/passwd"]},
    {"extra-args": ["-S", "-monitor", "stdio"]},
    {"memory": "1TiB"},
    {"smp": 4096},
    {"smp": {"cpus": 1, "maxcpus": 512}},
    {"disk": {"file": "/etc/passwd", "format": "raw"}},
    {"disk": {"file": "/dev/sda", "format": "raw"}},
    {"disk": {"file": "../../etc/shadow", "format": "raw"}},
    {"disk": {"file": "nbd://127.0.0.1/x", "format": "raw"}},
    {"disk": {"file": "json:{}", "format": "raw"}},
    {"boot": {"kernel": "/boot/vmlinuz"}},
    {"boot": {"kernel": "/proc/self/mem"}},
    {"net": {"type": "user", "hostfwd": [{"str": "tcp::2222-:22"}]}},
    {"net": {"type": "user", "smb": "/etc"}},
    {"net": {"type": "user", "tftp": "/etc", "bootfile": "shadow"}},
    {"net": {"type": "bridge", "br": "br0"}},
    {"net": {"type": "tap", "ifname": "tap0", "script": "/bin/sh"}},
    {"net": {"type": "socket", "listen": ":1"}},
    {"chardevs": {"c": {"backend": "file", "path": "/tmp/x"}}},
    {"chardevs": {"c": {"backend": "socket", "path": "/tmp/x", "server": "on"}}},
    {"chardevs": {"c": {"backend": "pipe", "path": "/tmp/x"}}},
    {"chardevs": {"c": {"backend": "null", "logfile": "/tmp/x"}}},
    {"objects": {"s": {"qom-type": "secret", "file": "/etc/shadow"}}},
    {"objects": {"f": {"qom-type": "filter-dump", "netdev": "n", "file": "/tmp/x"}}},
    {"objects": {"m": {"qom-type": "memory-backend-file", "size": "1M", "mem-path": "/etc/x"}}},
    {"devices": {"d": {"driver": "vfio-pci", "host": "0000:00:02.0"}}},
    {"devices": {"d": {"driver": "usb-host", "vendorid": 1}}},
    {"devices": {"d": {"driver": "e1000", "romfile": "/etc/passwd"}}},
    {"machine": {"type": "microvm", "dumpdtb": "/tmp/x"}},
    {"machine": {"type": "q35", "firmware": "/etc/passwd"}},
    {"sandbox": "off"},
    {"qemu": "/bin/sh"},
    {"qemu": "../../bin/sh"},
    {"platform": "/etc/passwd"},
    {"platform": "evil.yaml"},
    {"extends": "/etc/passwd"},
    {"display": "vnc=:1"},
    {"audio": {"a": {"driver": "wav", "path": "/tmp/x"}}},
    {"name": "../evil"},
    {"name": "\u202eevil"},
    {"migration": {"parameters": {"tls-creds": "x"}}, "extra-args": ["-incoming", "tcp::1"]},
)
RAW = (
    *(b"", b"\0", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b'{"id":"x"', b"{}{}", b"NaN"),
    *(b"[" * 60000, b'{"id":' * 9000, b'{"id":"x","id":"y","profile":"web"}'),
    *(b'{"id":"x","profile":NaN}', b'{"id":"\\ud800","profile":"web"}', b"x" * 65537),
    *(b'{"id":"x","profile":{"a":"\\u0000"}}', b"1" * 60000, b"a: &a [*a]", b"9" * 5000),
    *(b'{"id":"x","profile":"web"}\0', b'{"id":"x","profile":"web",}', b"\xef\xbb\xbf{}"),
    *(b'{"__proto__":{},"id":"x","profile":"web"}', b'{"id":1e400,"profile":"web"}'),
)
VERBS = ("START", "start2", "quit", "-", "command", "exec", "start start", "..", "human-monitor")


def payloads() -> list[tuple[str, bytes]]:
    """All of them; each is to be refused, or to fail, and to be answered."""
    found: list[tuple[str, object]] = []
    for name in ("id", "profile", "name", "platform", "qemu", "settings", "locked", "verify"):
        found += [("start", {**WHOLE, name: value}) for value in VALUES if value != ""]
    found += [("stop", {"id": "x", "machine": name}) for name in NAMES]
    found += [("migrate", {"id": "x", "machine": "web", "to": name}) for name in NAMES]
    found += [("snapshot", {"id": "x", "machine": "web", "tag": name}) for name in NAMES]
    found += [("console", {"id": "x", "machine": "web", "seconds": v}) for v in (-1, 61, "1", None)]
    found += [("start", {"id": "x", "profile": {**INLINE, **more}}) for more in OUTSIDE]
    settings = ("extends=/etc/passwd", "name=../x", "platform=/x.yaml", "extra-args=[-S]", "=", "x")
    found += [("start", {**WHOLE, "settings": [one]}) for one in settings]
    for word in ("quit", "migrate", "pmemsave", "human-monitor-command", "chardev-add", "getfd"):
        found.append(("qmp", {"id": "x", "machine": "web", "command": word}))
    whole = [(verb, json.dumps(value).encode()) for verb, value in found]
    whole += [("start", payload) for payload in RAW]
    return whole + [(verb, json.dumps(WHOLE).encode()) for verb in VERBS]


def mutations(seed: int, count: int) -> list[tuple[str, bytes]]:
    """Commands that began as good ones, of one line each."""
    chance = random.Random(seed)
    verbs = ("start", "stop", "migrate", "qmp", "snapshot", "resume", "lock", "plan", "console")
    found = []
    while len(found) < count:
        value = {"id": f"f{len(found)}", "profile": "web", "machine": "web", "to": "h9"}
        value |= {"command": "quit", "tag": "t", "settings": ["memory=1MiB"], "name": "web"}
        for _ in range(chance.randrange(4)):
            value.pop(chance.choice(list(value)), None) if len(value) > 1 else None
        if value and chance.random() < 0.5:
            value[chance.choice(list(value))] = chance.choice(VALUES)
        raw = bytearray(json.dumps(value).encode())
        for _ in range(chance.randrange(4)):
            at = chance.randrange(len(raw))
            kind = chance.randrange(4)
            if kind == 0:
                raw[at] = chance.randrange(256)
            elif kind == 1:
                del raw[at : at + chance.randrange(1, 9)]
            elif kind == 2:
                raw[at:at] = raw[at : at + chance.randrange(1, 99)]
            else:
                raw[at:at] = bytes(chance.choices(b'{}[]":,\\\x00\x7f', k=chance.randrange(1, 9)))
            raw = raw or bytearray(b"{")
        found.append((chance.choice(verbs), bytes(raw).replace(b"\n", b" ")))
    return found
