"""What the plan says is what QEMU has, asked by a client that knows nothing of the launcher."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from integration.rawqmp import RawQMP

PROFILES = ("microvm-demo", "q35-disk-net", "i440fx-legacy", "numa-memfd", "migration-pair")
PLATFORMS = ("debian-11", "debian-12", "native")

_MIGRATION = ("migration-capability", "migration-parameter", "migration-property")


def plan_of(root: str, profile: str, qemu: str, *more: str) -> dict:
    """`qemu-launcher plan … --format json`, as any program would read it."""
    path = os.path.join(root, "profiles", f"{profile}.yaml")
    done = subprocess.run(
        [sys.executable, "-m", "launcher", "plan", path, "--qemu", qemu, "--format", "json", *more],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def text(value: object) -> str:
    """A value as keyval text, so that `True`, `"on"` and `"true"` are one."""
    return {"True": "on", "true": "on", "False": "off", "false": "off"}.get(str(value), str(value))


def ask(qmp: RawQMP, value: dict) -> str | None:
    """The value that QEMU has, by the plainest command there is; None where none shows it."""
    spelled = value.get("written", {}).get("property", value["property"])
    family, key = value["family"], value["id"]
    if spelled == "cpu.model":
        first = qmp.execute("query-cpus-fast")[0]["qom-path"]
        kind = qmp.execute("qom-get", path=first, property="type")
        return text(kind.removesuffix("-x86_64-cpu"))
    if family in ("object", "machine", "device"):
        path = {"object": f"/objects/{key}", "machine": "/machine"}.get(
            family, f"/machine/peripheral/{key}"
        )
        name, *inner = {"bus": "parent_bus"}.get(spelled, spelled).split(".")
        answer = qmp.ask("qom-get", {"path": path, "property": name})
        found = answer.get("return")
        for member in inner if family == "machine" else ():
            found = found[member]
        return None if found is None else text(found)
    if family == "migration-capability":
        listed = qmp.execute("query-migrate-capabilities")
        return text({c["capability"]: c["state"] for c in listed}[spelled])
    if family == "migration-parameter":
        return text(qmp.execute("query-migrate-parameters")[spelled])
    if family == "migration-property":
        shown = qmp.hmp("info migrate") + qmp.hmp("info migrate -a")
        lines = dict(line.strip().split(": ", 1) for line in shown.splitlines() if ": " in line)
        return lines.get(spelled)
    return None


def agrees(planned: str, observed: str) -> bool:
    return planned == observed or observed.rpartition("/")[2] == planned


@pytest.mark.integration
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_value_is_what_was_planned(project, disk, qemu, profile, platform):
    settings = ["--set", f"disk={disk}"] if profile in ("q35-disk-net", "i440fx-legacy") else []
    plan = plan_of(project, profile, qemu.binary, "--platform", platform, *settings)
    with RawQMP(plan["argv"]) as qmp:
        for step in plan["setup"]:
            qmp.execute(step["command"], **step["arguments"])
        assert qmp.execute("query-status")["running"] is False
        asked = 0
        for value in plan["values"]:
            if value["observer"] not in (
                "qom",
                "query-migrate-parameters",
                "query-migrate-capabilities",
                "hmp-migrate",
                "hmp-migrate-all",
            ):
                continue
            if value["property"] == "addr":
                continue  # QEMU answers with a number for `06.0`
            planned = text(value.get("written", {}).get("value", value["value"]))
            observed = ask(qmp, value)
            assert observed is not None, value
            assert agrees(planned, observed), (value, observed)
            asked += 1
        assert asked >= (3 if platform == "native" else 8)
        assert "invalid class name" not in qmp.said()


@pytest.mark.integration
def test_pins_reach_the_command_line(project, qemu):
    """Nothing pinned is missing from argv and setup: each is written, or omitted with a reason."""
    plan = plan_of(project, "microvm-demo", qemu.binary, "--platform", "debian-12")
    words = " ".join(plan["argv"]) + json.dumps(plan["setup"])
    pinned = [v for v in plan["values"] if v["origin"] == "platform debian-12"]
    assert pinned
    for value in pinned:
        assert value.get("written", {}).get("property", value["property"]) in words, value
    for omitted in plan["omitted"]:
        assert omitted["reason"]
