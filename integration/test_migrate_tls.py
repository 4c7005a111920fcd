"""Migrations over TLS, with certificates and between two networks."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import random
import re
import shutil
import subprocess

import pytest

from integration.certificates import make_authority, make_certificate
from integration.conftest import installed, needs_tap
from integration.ports import free_port
from integration.test_migrate import (
    FULL,
    PAIRS,
    PATIENT,
    assert_at_source,
    fails,
    folder_name,
    goes_on,
    nothing_is_left,
    prepared,
    profile_of,
    run_verb,
    running,
    waiting,
)
from launcher.begin import begin
from launcher.incoming import waiting_plan
from launcher.migrate import follow, transport
from launcher.record import replace
from launcher.start import attach, start
from tests.unit.test_migrate import CERTIFICATE

pytestmark = pytest.mark.integration

__all__ = ["nothing_is_left"]  # a fixture that is used by all


def encrypted(folder: str, kind: str = "x509", **parameters) -> dict:
    """What a profile has for TLS, without a word on who is client and who server."""
    return {
        "objects": {"tls0": {"qom-type": f"tls-creds-{kind}", "dir": folder}},
        "migration": {"parameters": {"tls-creds": "tls0", **parameters}},
    }


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> str:
    """A folder for both ends, on the loopback."""
    folder = str(tmp_path_factory.mktemp("certificates"))
    make_authority(folder)
    make_certificate(folder, "server", "IP:127.0.0.1", "DNS:here.example")
    make_certificate(folder, "client")
    return folder


@pytest.mark.parametrize(("old", "new"), [("10.0", "7.2"), *([("7.2", "11.1")] * FULL)], ids=str)
def test_an_encrypted_stream(guest, tmp_path, old, new):
    """One profile: the source is the client's end and the destination the server's."""
    (tmp_path / "keys.psk").write_text(f"qemu:{random.Random(1).randbytes(32).hex()}\n")
    tls = encrypted(str(tmp_path), "psk", **{"tls-hostname": ""})
    path = tmp_path / "moved.yaml"
    path.write_text(json.dumps(profile_of(guest, **tls)))
    ends = ["--from", installed(old).binary, "--to", installed(new).binary]
    done = run_verb(str(path), *ends, "--via", "tcp", "--format", "json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["result"]) == (0, "completed"), told
    endpoints = [
        {v["property"]: v["planned"] for v in told[end]["values"] if v["id"] == "tls0"}["endpoint"]
        for end in ("source", "destination")
    ]
    assert endpoints == ["client", "server"]


@pytest.mark.parametrize(("old", "new"), PAIRS if FULL else [("10.0", "11.1")], ids=str)
def test_certificates_there_and_back(guest, tmp_path, certificates, old, new):
    """Each end has been client and server; every channel of multifd is encrypted."""
    tls = encrypted(certificates)
    tls["migration"]["capabilities"] = {"multifd": "on"}
    path = tmp_path / "moved.yaml"
    path.write_text(json.dumps(profile_of(guest, **tls)))
    ends = ["--from", installed(old).binary, "--to", installed(new).binary]
    done = run_verb(str(path), *ends, "--via", "tcp", "--there-and-back", "--format", "json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["result"]) == (0, "completed"), told
    assert told["counter"]["verdict"] == told["back"]["counter"]["verdict"] == "continues"
    assert told["verdict"] == "match"


async def test_a_stream_is_not_readable_on_its_way(guest, certificates):
    """What the guest has in its memory does not show between the two ends."""
    seen = {}
    cases = {"encrypted": encrypted(certificates), **({"plain": {}} if FULL else {})}
    for name, tls in cases.items():
        profile = profile_of(guest, **tls)
        half = [f"objects.tls0.endpoint={end}" if tls else "verify=strict"
                for end in ("client", "server")]  # fmt: skip
        async with running(profile, "10.0", half[0]) as source:
            destination = await waiting(source, profile, "10.0", half[1])
            try:
                seen[name] = await _listened(source, destination)
                await goes_on(destination, source.console.text)
            finally:
                await destination.close()
    assert seen == {"encrypted": False, **({"plain": True} if FULL else {})}


async def _listened(source, destination) -> bool:
    """Whether a relay between the two ends saw the guest's name for its kernel."""
    found = []

    async def relay(reader, writer):
        out = await asyncio.open_connection("127.0.0.1", port)

        async def copy(one, other):
            last = b""
            while data := await one.read(1 << 16):
                found.append(b"Linux version" in last + data)
                last = data[-32:]
                other.write(data)
                await other.drain()
            other.close()

        await asyncio.gather(copy(reader, out[1]), copy(out[0], writer), return_exceptions=True)

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    port = free_port()
    between = server.sockets[0].getsockname()[1]
    real = transport.arguments

    def through(capabilities, command, via):
        aimed = replace(via, port=between) if command == "migrate" else via
        return real(capabilities, command, aimed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transport, "arguments", through)
        async with server:
            await source.migrate(destination, via=f"tcp:127.0.0.1:{port}", limits=PATIENT)
    assert len(found) > 50
    return any(found)


async def test_a_certificate_for_another_name_is_refused_before_a_byte(guest, certificates):
    profile = profile_of(guest, **encrypted(certificates, **{"tls-hostname": "there.example"}))
    async with running(profile, "10.0", "objects.tls0.endpoint=client") as source:
        destination = await waiting(source, profile, "11.1", "objects.tls0.endpoint=server")
        error = await fails(source, destination, via="tcp")
        assert (error.migration.result, error.exit_status) == ("refused", 1)
        assert "is for 127.0.0.1, here.example" in error.message.replace(
            "here.example, 127.0.0.1", "127.0.0.1, here.example"
        )
        assert "will expect there.example" in error.message
        assert (await source.qmp("query-migrate")).get("status", "none") == "none"
        await assert_at_source(source, destination)


async def test_a_client_that_nobody_knows(guest, tmp_path, certificates):
    """Signed by another authority: the server's end refuses it, and the guest goes on."""
    other, mine = tmp_path / "other", tmp_path / "mine"
    for folder in (other, mine):
        folder.mkdir()
    make_authority(str(other))
    shutil.copy(os.path.join(certificates, "ca-cert.pem"), mine)
    make_certificate(str(mine), "client", authority=str(other))
    settings = ["objects.tls0.endpoint=client", f"objects.tls0.dir={mine}",
                "objects.tls0.sanity-check=off"]  # fmt: skip
    profile = profile_of(guest, **encrypted(certificates))
    async with running(profile, "7.2", *settings) as source:
        destination = await waiting(source, profile, "10.0", "objects.tls0.endpoint=server")
        error = await fails(source, destination, via="tcp", limits=PATIENT)
        assert error.migration.result == "failed"
        assert re.search("TLS handshake failed|certificate", error.message), error.message
        await assert_at_source(source, destination)


# -- between two hosts ----------------------------------------------------------------------------


@contextlib.contextmanager
def inside(namespace: str):
    """What this thread starts meanwhile is on that host's network."""
    libc = ctypes.CDLL(None, use_errno=True)
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        assert libc.setns(there, 0) == 0, os.strerror(ctypes.get_errno())
        yield
    finally:
        assert libc.setns(own, 0) == 0, os.strerror(ctypes.get_errno())
        os.close(own)
        os.close(there)


@pytest.fixture
def hosts():
    """Two network namespaces, joined by a cable; the launcher is in neither."""
    needs_tap()
    names = [f"ql-{os.getpid()}-{end}" for end in "ab"]
    wires = [f"ql{os.getpid()}{end}"[-15:] for end in "ab"]

    def ip(*words: str) -> None:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, done.stderr

    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", wires[0], "netns", names[0], "type", "veth", "peer", "name", wires[1],
           "netns", names[1])  # fmt: skip
        for number, (name, wire) in enumerate(zip(names, wires, strict=True), 1):
            ip("-n", name, "addr", "add", f"192.0.2.{number}/24", "dev", wire)
            ip("-n", name, "link", "set", wire, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=20)


@pytest.mark.parametrize(
    ("old", "new"), [("11.1", "7.2"), *([("7.2", "11.1"), ("5.2", "10.0")] * FULL)], ids=str
)
async def test_between_two_networks(guest, tmp_path, hosts, old, new):
    """Neither end sees the other's loopback, and the launcher sees neither's network."""
    folder = str(tmp_path)
    make_authority(folder)
    make_certificate(folder, "server", "IP:192.0.2.2")
    make_certificate(folder, "client")
    tls = encrypted(folder)
    tls["migration"]["capabilities"] = {"multifd": "on"}
    profile = profile_of(guest, **tls)
    ends = [await prepared(profile, release, f"objects.tls0.endpoint={role}")
            for release, role in ((old, "client"), (new, "server"))]  # fmt: skip
    with inside(hosts[0]):
        started = begin(ends[0], folder=folder_name())
    source = await start(started)
    try:
        await source.console.wait_for(r"tick 1\s", 90)
        waits = waiting_plan(ends[1].plan, source.plan.uuid)
        with inside(hosts[1]):
            started = begin(ends[1].with_plan(waits), folder=folder_name())
        destination = await attach(started)
        try:
            migration = await source.migrate(destination, via="tcp:192.0.2.2:0", limits=PATIENT)
            assert re.fullmatch(r"tcp:192\.0\.2\.2:[1-9]\d+", migration.via)
            await goes_on(destination, source.console.text)
            assert follow(source.console.text, destination.console.text).verdict == "continues"
        finally:
            await destination.close()
    finally:
        await source.close()


def test_a_certificate_for_another_host_is_told_before_anything_starts(guest, tmp_path):
    (tmp_path / "server-cert.pem").write_text(CERTIFICATE)
    tls = {
        "objects": {"tls0": {"qom-type": "tls-creds-x509", "dir": str(tmp_path)}},
        "migration": {"parameters": {"tls-creds": "tls0"}},
    }
    path = tmp_path / "moved.yaml"
    path.write_text(json.dumps(profile_of(guest, **tls)))
    binary = installed("10.0").binary
    wrong = ["--via", "tcp", "--set", "migration.parameters.tls-hostname=host-a.example"]
    done = run_verb(str(path), "--from", binary, "--to", binary, *wrong)
    assert done.returncode == 4
    assert "is for host-b.example, *.lab.example" in done.stderr
    assert "will expect host-a.example" in done.stderr
    assert "starting" not in done.stderr
