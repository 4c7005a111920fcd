"""A guest whose TPM goes with it: between QEMUs, into a file and back, and between hosts."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

import launcher
from integration.agent_pair import Pair
from integration.conftest import installed, needs
from launcher.begin import begin
from launcher.errors import InputError
from launcher.incoming import incoming
from launcher.migrate import MigrationError
from launcher.prepare import Request, load, prepare
from launcher.rehearse import Rehearsal, Rehearsing
from launcher.start import start

pytestmark = pytest.mark.timeout(300)

#: Both ways between releases, and over as many as there are.
PAIRS = (("5.2", "11.1"), ("11.1", "7.2"), ("10.0", "11.1"))
#: A shell function that gives its words to the TPM, and prints the answer in hexadecimal.
ASK = (
    'tpm() { exec 3<>/dev/tpm0; printf "$1" >&3; dd bs=4096 count=1 <&3 2>/dev/null'
    " | od -An -tx1 | tr -d ' \\n'; exec 3>&-; }"
)
#: TPM 2.0 library, part 3: NV_DefineSpace by the owner, of 8 bytes, and NV_ReadPublic; %s is the
#: last byte of the index.
DEFINE = (
    "8002 0000002d 0000012a 40000001 00000009 40000009 0000 00 0000"
    " 0000 000e 015000%s 000b 02060006 0000 0008"
)
READ = "8001 0000000e 00000169 015000%s"


@pytest.fixture(autouse=True)
def swtpm():
    needs(shutil.which("swtpm") is not None, "scripts/test installs swtpm")


def profile(state, **more) -> dict:
    return {
        "name": "tpm",
        "platform": "debian-12",
        "machine": {"type": "pc-q35-5.2"},
        "accel": "tcg",
        "memory": "64MiB",
        "tpm": {"state": str(state), **more},
    }


def with_guest(state, guest: str) -> dict:
    append = "console=ttyS0 quiet loglevel=3"
    boot = {"kernel": f"{guest}/vmlinuz", "initrd": f"{guest}/initrd.img", "append": append}
    return {
        **profile(state),
        "machine": {"type": "pc-q35-7.2"},
        "memory": "128MiB",
        "boot": boot,
        "serial": "console",
    }


async def planned(given, release: str):
    return await prepare(load(Request(given, qemu=installed(release).binary)))


async def ask(machine, words: str) -> str:
    """The TPM's answer to the guest: its reason code, which is 0 for what it did."""
    line = "".join(f"\\{int(one, 16):03o}" for one in re.findall("..", words.replace(" ", "")))
    await machine.console.send_line(f"{ASK}; echo said-$(tpm '{line}').")
    found = await machine.console.expect(r"said-[0-9a-f]{12}([0-9a-f]{8})[0-9a-f]*\.", 60)
    return found.group(1)


def names_in(folder) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name != ".lock")


async def test_what_a_guest_keeps_in_its_tpm_goes_with_it(tmp_path, guest):
    """And into a file, and back from it."""
    given = with_guest(tmp_path / "a", guest)
    source = await start(begin(await planned(given, "10.0"), folder="tpm-1"))
    try:
        await source.console.wait_for("guest is up", 100)
        assert await ask(source, READ % "01") != "00000000"
        assert await ask(source, DEFINE % "01") == "00000000"
        there = await planned(with_guest(tmp_path / "b", guest), "11.1")
        destination = await incoming(there, uuid=source.plan.uuid, folder="tpm-2")
        migration = await source.migrate(destination)
    finally:
        await source.close()
    try:
        assert migration.result == "completed"
        assert [f.code for f in migration.findings] == []
        assert await ask(destination, READ % "01") == "00000000"
        assert await ask(destination, DEFINE % "02") == "00000000"
        state = str(tmp_path / "guest.state")
        await launcher.save(destination, state)
    finally:
        await destination.close()
    with pytest.raises(InputError, match="a machine whose profile is no file"):
        await launcher.restore(state)
    again = {"profile": with_guest(tmp_path / "b", guest), "qemu": installed("10.0").binary}
    restored = await launcher.restore(state, **again)
    try:
        assert await ask(restored, READ % "01") == "00000000"
        assert await ask(restored, READ % "02") == "00000000"
        assert await ask(restored, READ % "03") != "00000000"
    finally:
        await restored.close()


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize(
    ("here", "there", "code", "words"),
    [
        (("a", {}), ("b", {}), "", ""),
        (("a", {"version": "1.2"}), ("b", {"version": "1.2"}), "", ""),
        (("a", {}), ("a", {}), "tpm-state", "CMD_INIT: 0x9"),
        (
            *(("a", {"version": "1.2"}), ("b", {"model": "tpm-tis"})),
            *("tpm-version", "Setting the stateblob (type 1) failed with a TPM error"),
        ),
        (
            *(("a", {"model": "tpm-tis"}), ("b", {"version": "1.2"})),
            *("tpm-version", "Setting the stateblob (type 1) failed with a TPM error"),
        ),
    ],
    ids=["2.0", "1.2", "one-folder", "1.2-2.0", "2.0-1.2"],
)
async def test_what_breaks_is_told_before(tmp_path, pair, here, there, code, words):
    """And without a word of the preflight's QEMU says so itself."""
    ends = [
        await planned(profile(tmp_path / folder, **more), release)
        for (folder, more), release in zip((here, there), pair, strict=True)
    ]
    source = await start(begin(ends[0], folder="tpm-1"))
    try:
        for force in (False, True):
            destination = await incoming(ends[1], uuid=source.plan.uuid, folder="tpm-2")
            try:
                if code == "":
                    migration = await source.migrate(destination, force=force)
                    assert {one.severity for one in migration.findings} <= {"risks"}
                    return
                with pytest.raises(MigrationError) as caught:
                    await source.migrate(destination, force=force)
                found = caught.value.migration
                assert [f.code for f in found.findings if f.severity == "breaks"] == [code]
                assert found.result == ("failed" if force else "refused")
                assert not force or words in caught.value.message
            finally:
                await destination.close()
        assert (await source.verify()).verdict == "match"
    finally:
        await source.close()


@pytest.mark.parametrize("legs", [1, 2])
async def test_a_rehearsal_of_one_profile_leaves_its_state_behind(tmp_path, legs):
    """Two swtpms cannot have one folder; the newest state is in the profile's at the end."""
    state = tmp_path / "state"
    ends = {"source": installed("10.0").binary, "destination": installed("11.1").binary}
    path = tmp_path / "tpm.yaml"
    path.write_text(
        "platform: debian-12\nmachine: {type: pc-q35-5.2}\naccel: tcg\nmemory: 64MiB\ntpm: state\n"
    )
    async with launcher.launch(str(path), qemu=ends["source"]):
        pass
    (file,) = names_in(state)
    before = (state / file).stat().st_mtime_ns
    rehearsal = Rehearsal(Rehearsing(str(path), legs=legs, **ends))
    await rehearsal.run()
    assert [leg.migration.result for leg in rehearsal.legs] == ["completed"] * legs
    assert names_in(tmp_path) == ["state", "tpm.yaml"]
    assert names_in(state) == [file]
    # swtpm writes the whole of it when the guest arrives.
    assert (state / file).stat().st_mtime_ns > before
    async with launcher.launch(str(path), qemu=ends["source"]) as machine:
        assert machine.report.verdict == "match"


async def test_a_rehearsal_that_fails_keeps_the_state_of_the_source(tmp_path):
    state = tmp_path / "state"
    binary = installed("11.1").binary
    given = profile(state)
    rehearsal = Rehearsal(
        Rehearsing(given, source=binary, destination=binary, destination_settings=("smp=2",))
    )
    with pytest.raises(MigrationError):
        await rehearsal.run()
    assert names_in(tmp_path) == ["state"]
    async with launcher.launch(given, qemu=binary) as machine:
        assert machine.report.verdict == "match"


@pytest.fixture
def pair(own_broker, tmp_path, guest):
    """Two agents whose policies allow TPMs in one folder each."""
    folders = [tmp_path / name for name in ("tpms-a", "tpms-b")]
    for folder in folders:
        folder.mkdir()
    made = Pair(
        *(own_broker, tmp_path, guest, ("10.0", "11.1")),
        machine="{type: pc-q35-7.2}",
        disks=[f"tpm: {folder}/web\n" for folder in folders],
        policy={"tpms": [str(folder) for folder in folders]},
    )
    yield made
    made.close()


def test_agents_move_it_too(pair, tmp_path):
    here = pair.strangers[0]
    started = here.do("start", profile="web")
    assert started["status"] == "done", started
    last = pair.counts(0)[-1]
    moved = here.do("migrate", machine="web", to=pair.names[1])
    assert moved["status"] == "done", (moved, *(agent.log() for agent in pair.agents))
    assert pair.counts(1)[0] > last
    assert names_in(tmp_path / "tpms-a/web") == names_in(tmp_path / "tpms-b/web")
    back = pair.strangers[1].do("migrate", machine="web", to=pair.names[0])
    assert back["status"] == "done", back
    # Where both hosts mean one folder nothing is sent.
    profile = Path(pair.agents[1].folder, "profiles", "web.yaml")
    profile.write_text(profile.read_text().replace("tpms-b", "tpms-a"))
    told = here.do("preflight", machine="web", to=pair.names[1])["result"]["findings"]
    assert [one["code"] for one in told if one["severity"] == "breaks"] == ["tpm-state"]
    refused = here.do("migrate", machine="web", to=pair.names[1])
    assert (refused["status"], refused["error"]["code"]) == ("failed", "preflight"), refused
    # Nor is a folder elsewhere within the policy, or the host's own TPM.
    for tpm in (str(tmp_path / "elsewhere"), str(tmp_path / "tpms-a/../web")):
        own = here.do("start", profile="web", name="own", settings=[f"tpm={tpm}"])
        assert (own["status"], own["error"]["code"]) == ("refused", "policy"), own
        assert "the TPM's state" in own["error"]["message"]
    assert here.do("stop", machine="web", first="quit")["status"] == "done"
