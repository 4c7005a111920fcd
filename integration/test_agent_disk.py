"""Guests with disks go from one agent's host to another's, on storage that both hosts see."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from integration.agent_pair import Pair
from integration.conftest import installed
from integration.mqtt import Broker
from integration.namespaces import BROKER, Network
from integration.network_storage import NetworkStorage
from tests.support.certificates import Authority

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

#: What both hosts see: a folder of this machine's; with QEMU_LAUNCHER_FULL=1 also a network file
#: system, which needs a package besides those that all tests need.
STORAGES = (
    ("one folder", "network") if os.environ.get("QEMU_LAUNCHER_FULL") == "1" else ("one folder",)
)

DISKS = """\
disk:
  - {{file: {folder}/a.raw, id: a}}
  - {{file: {folder}/b.qcow2, id: b, backing: null}}
"""
#: Writes a block to both disks, drops what Linux remembers, and reads that block and the first.
LOOP = (
    "n=0; while sleep 0.1; do n=$((n+1));"
    " for d in a b; do echo n$n. | dd of=/dev/vd$d bs=512 seek=$n conv=notrunc,fsync 2>/dev/null"
    " || echo cannot write $d; done;"
    " echo 3 >/proc/sys/vm/drop_caches;"
    " for d in a b; do for m in 1 $n; do"
    " x=$(dd if=/dev/vd$d bs=512 skip=$m count=1 2>/dev/null | head -n1);"
    ' [ "$x" = n$m. ] || echo cannot read $d; done; done;'
    " echo disk $n; done &\n"
)


def make_images(folder) -> None:
    folder.mkdir()
    tool = installed("7.2").image_tool
    for name, kind in ("a.raw", "raw"), ("b.qcow2", "qcow2"):
        words = [tool, "create", "-q", "-f", kind, str(folder / name), "16M"]
        subprocess.run(words, check=True, timeout=60)


def blocks(path: str, kind: str, last: int) -> list[bytes]:
    """What the first blocks of an image that nobody uses begin with, as QEMU itself reads it."""
    plain = f"{path}.plain"
    words = [installed("11.1").image_tool, "convert", "-f", kind, "-O", "raw", path, plain]
    subprocess.run(words, check=True, timeout=60)
    with open(plain, "rb") as file:
        found = [file.read(512).split(b"\n")[0] for _ in range(last + 1)]
    return found[1:]


@pytest.fixture
def network():
    """Two hosts."""
    made = Network(2)
    yield made
    made.close()


@pytest.fixture(params=STORAGES)
def images(request, network, tmp_path):
    """The folder of the images, as either host names it."""
    if request.param == "one folder":
        make_images(tmp_path / "images")
        yield [tmp_path / "images"] * 2
        return
    storage = NetworkStorage(network, str(_folder(tmp_path, "storage")))
    try:
        found = [Path(mount) / "images" for mount in storage.mounts]
        make_images(found[0])
        yield found
    finally:
        storage.close()


@pytest.fixture
def make_pair(tmp_path, guest, network, images):
    """Two hosts in network namespaces that see the images, with TLS everywhere."""
    made = []
    authority = Authority(str(_folder(tmp_path, "authority")))
    folder = str(_folder(tmp_path, "broker"))
    broker = Broker(folder, prefix=network.middle, address=BROKER, authority=authority)

    def make(releases=("10.0", "11.1")) -> Pair:
        allowed = [guest, os.path.realpath(guest), *map(str, images)]
        pair = Pair(
            *(broker, tmp_path, guest, releases),
            machine="{type: pc-q35-7.2}",
            disks=[DISKS.format(folder=one) for one in images],
            policy={
                "image-formats": ["raw", "qcow2"],
                "qmp": ["query-block"],
                "images": allowed,
            },
            network=network,
            authority=authority,
        )
        made.append(pair)
        return pair

    broker.start()
    try:
        yield make
    finally:
        for pair in made:
            pair.close()
        broker.close()
    assert [agent.machines() for pair in made for agent in pair.agents] == [{}, {}]


def _folder(parent, name):
    made = parent / name
    made.mkdir()
    return made


def begin(pair: Pair) -> int:
    """Start the guest at the first host and have it write; the last number that it wrote."""
    here = pair.strangers[0]
    started = here.do("start", profile="web")
    assert started["status"] == "done", (started, pair.agents[0].log())
    pair.counts(0)
    assert here.do("console", machine="web", seconds=1, input=LOOP)["status"] == "done"
    return writes(pair, 0)


def writes(pair: Pair, end: int, after: int = 0) -> int:
    """What the guest wrote last; it writes and reads at that host, and went on from there."""
    said = pair.said(end, r"(disk \d+|cannot \w+ \w)\r?\n")
    assert not [line for line in said if line.startswith("cannot")], said
    numbers = [int(line.split()[1]) for line in said]
    # Nobody may listen just when one is told, but none comes twice.
    assert numbers == sorted(set(numbers))
    assert numbers[0] > after
    return numbers[-1]


def test_a_guest_takes_its_disks_to_another_host_and_back(make_pair, images):
    """Over TLS, from QEMU 10.0 to 11.1: it writes and reads all the time, and nothing is lost."""
    pair = make_pair()
    seen = [{"raw": str(one / "a.raw"), "qcow2": str(one / "b.qcow2")} for one in images]
    last = begin(pair)
    for here in (0, 1):
        there = 1 - here
        moved = pair.strangers[here].do("migrate", machine="web", to=pair.names[there])
        assert moved["status"] == "done", (moved, *(agent.log() for agent in pair.agents))
        assert (moved["result"]["to"], moved["result"]["tls"]) == (pair.names[there], True)
        assert pair.running() == [there]
        last = writes(pair, there, after=last)
        # The images are locked by the QEMU that runs it: nobody else can write to them.
        for kind, path in (*seen[0].items(), *seen[1].items()):
            words = [installed("7.2").image_tool, "resize", "-q", "-f", kind, path, "32M"]
            refused = subprocess.run(words, capture_output=True, text=True, timeout=60)
            assert (refused.returncode, "lock" in refused.stderr) == (1, True), refused
    ended = pair.strangers[0].do("stop", machine="web", first="quit")
    assert ended["status"] == "done", ended
    check = [installed("11.1").image_tool, "check", "-q", seen[0]["qcow2"]]
    assert subprocess.run(check, timeout=60).returncode == 0
    for kind, path in seen[0].items():
        written = [f"n{number}.".encode() for number in range(1, last + 1)]
        assert blocks(path, kind, last) == written
    print(f"{last} blocks on each disk")


def preflight(pair: Pair) -> set[tuple[str, str]]:
    """What breaks if the guest goes to the second host: which kinds, at which parts."""
    told = pair.strangers[0].do("preflight", machine="web", to=pair.names[1])
    assert told["status"] == "done", told
    found = told["result"]["findings"]
    return {(one["code"], one["id"]) for one in found if one["severity"] == "breaks"}


def test_where_the_images_are_not_to_be_had_nothing_is_sent(make_pair, images, tmp_path):
    """The other host has them elsewhere, may not open them, or has a TPM for the guest."""
    pair = make_pair(("11.1", "11.1"))
    here, there = pair.strangers[0], images[1]
    last = begin(pair)
    forbidden = _folder(tmp_path, "forbidden")
    for name in "a.raw", "b.qcow2":
        (forbidden / name).write_bytes((there / name).read_bytes())
    (there / "away").symlink_to(forbidden)
    copies = _folder(there, "copies")
    for name in "a.raw", "b.qcow2":
        (copies / name).write_bytes((there / name).read_bytes())
    profile = os.path.join(pair.agents[1].folder, "profiles", "web.yaml")
    with open(profile) as file:
        rest = file.read().partition("disk:")[0]
    for disks, code, words in (
        (DISKS.format(folder=there / "missing"), "launch", "missing/a.raw"),
        (DISKS.format(folder=forbidden), "policy", f"the file {forbidden}/a.raw"),
        (DISKS.format(folder=there / "away"), "policy", f"the file {there}/away/a.raw"),
        (f"tpm: {tmp_path}/tpm\n", "policy", "tpm"),
        # Without a word QEMU would go on with a disk that is not the guest's.
        (DISKS.format(folder=copies), "preflight", "another file"),
    ):
        with open(profile, "w") as file:
            file.write(rest + disks)
        told = {"launch": "image-absent", "preflight": "image"}.get(code)
        if told is not None:
            assert preflight(pair) == {(told, "a"), (told, "b")}
        refused = here.do("migrate", machine="web", to=pair.names[1])
        assert refused["status"] == "failed", refused
        assert refused["error"]["code"] == code, refused
        assert words in refused["error"]["message"], refused
        assert "the guest runs here as before" in refused["error"]["message"]
        assert pair.agents[1].machines() == {}
        assert (pair.running(), pair.state(1)) == ([0], {})
        # Not a byte was sent: QEMU knows of no migration.
        asked = pair.agents[0].launcher("qmp", "web", "query-migrate")
        assert "status" not in json.loads(asked.stdout), asked
        last = writes(pair, 0, after=last)
        if words == "tpm":
            # Its state is not among what a policy knows, so no such machine comes to be.
            own = pair.strangers[1].do("start", profile="web", name="own")
            assert (own["status"], own["error"]["code"]) == ("refused", "policy"), own
            assert not (tmp_path / "tpm").exists()
