"""Hostile text goes from a profile through argv into QEMU and comes back the same.

QEMU_LAUNCHER_FULL=1 sends 25 000 strings to each release (RELIABILITY goal: 100 000 in all).
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

ALPHABETS = (
    ",=.:;{}[]\"'\\$ %@`|&*!#~-/<>?^()+",
    "abcxyzABC019_",
    "äßжπ語😀\u202e\u200b\ufeff\u00a0",
    "on off true false null 0 1 yes,no=id,file=",
)
#: So many strings fit into one command line.
AT_ONCE = 500
ROUNDS = 50 if os.environ.get("QEMU_LAUNCHER_FULL") else 1


def hostile_strings(seed: int) -> list[str]:
    chance = random.Random(seed)
    found = [
        ",",
        ",,",
        "=",
        "a,b=c",
        "id=x",
        '"',
        "'",
        "\\",
        "{}",
        "[",
        "on",
        "0x10",
        "-",
        "%s",
        "~",
    ]
    while len(found) < AT_ONCE:
        alphabet = "".join(chance.choices(ALPHABETS, k=2))
        text = "".join(chance.choices(alphabet, k=chance.randint(1, 40)))
        if "${" not in text:
            found.append(text)
    return found


def test_every_string_comes_back_the_same(qemu, tmp_path, project):
    """`authz-simple.identity` is any text; QEMU only keeps it."""
    path = tmp_path / "strings.yaml"
    for seed in range(ROUNDS):
        strings = {f"s{n}": text for n, text in enumerate(hostile_strings(seed))}
        objects = {
            key: {"qom-type": "authz-simple", "identity": text} for key, text in strings.items()
        }
        profile = {"platform": "native", "machine": "none", "accel": "tcg", "objects": objects}
        path.write_text(json.dumps(profile, ensure_ascii=False), encoding="utf-8")
        command = [sys.executable, "-m", "launcher", "verify", str(path)]
        done = subprocess.run(
            [*command, "--qemu", qemu.binary, "--format", "json"],
            env={**os.environ, "PYTHONPATH": project},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout[:2000] + done.stderr[:2000]
        values = json.loads(done.stdout)["values"]
        observed = {v["id"]: v["observed"] for v in values if v["property"] == "identity"}
        assert observed == strings
