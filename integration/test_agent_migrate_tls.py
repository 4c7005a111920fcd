"""Whose stream an agent takes: of one host of its authority, and of no other."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import ssl
import time
import uuid

import pytest

from integration.conftest import RELEASES, installed
from integration.mqtt import ROOT, Stranger
from integration.ports import free_port
from integration.rawqmp import RawQMP
from integration.test_agent_migrate import Pair
from launcher.agent.moves.tls import REFUSED
from launcher.migrate.certificate import subject_of
from tests.support.certificates import Authority

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

#: Names as certificates have them, each with something that is written in a way of its own.
SUBJECTS = (
    "/CN=h1",
    "/C=DE/ST=b/L=l/street=s 1/postalCode=10115/O=Acme, Inc./OU=one+OU=two/CN=h1",
    "/DC=org/DC=example/UID=u1/CN=h1/emailAddress=a@b.example",
    "/CN=x/serialNumber=12/title=T/GN=g/SN=s/description=d",
    '/O=semi;quote"less<more>back\\\\equals=/CN=#first#',
    "/O= before and after /CN= ",
    "/CN=h\u00fclle",
)


@pytest.mark.parametrize("release", RELEASES)
def test_a_name_is_written_as_qemu_writes_it(release, authority, tmp_path):
    """And whoever has another one is turned away, while the destination goes on waiting."""
    tls = authority.qemu_folder(str(tmp_path / "tls"), "h2")
    argv = [installed(release).binary, "-nodefaults", "-display", "none", "-M", "microvm"]
    qemu = RawQMP([*argv, "-S", "-incoming", "defer"])
    try:
        made = {"qom-type": "tls-creds-x509", "id": "t", "endpoint": "server", "dir": tls}
        qemu.execute("object-add", **made, **{"verify-peer": True})
        qemu.execute("object-add", **{"qom-type": "authz-simple", "id": "a", "identity": "CN=no"})
        qemu.execute("migrate-set-parameters", **{"tls-creds": "t", "tls-authz": "a"})
        port = free_port()
        qemu.execute("migrate-incoming", uri=f"tcp:127.0.0.1:{port}")
        expected = []
        for number, subject in enumerate(SUBJECTS):
            certificate, key = authority.sign(f"{release}-{number}", subject=subject)
            with open(certificate) as file:
                expected.append(f"{REFUSED}{subject_of(file.read())} is denied")
            assert is_turned_away(port, authority, certificate, key)
        said = [line[line.index(REFUSED) :] for line in qemu.said().splitlines() if REFUSED in line]
        assert said == expected
        assert qemu.execute("query-status")["status"] == "inmigrate"
    finally:
        qemu.close()


def is_turned_away(
    port: int, authority: Authority, certificate: str, key: str, seconds: float = 60
) -> bool:
    """Whether who listens there ends a connection with that certificate within some seconds."""
    context = ssl.create_default_context(cafile=authority.file)
    context.check_hostname = False
    context.load_cert_chain(certificate, key)
    with (
        socket.create_connection(("127.0.0.1", port)) as bare,
        contextlib.closing(context.wrap_socket(bare)) as sock,
    ):
        sock.settimeout(seconds)
        try:
            return sock.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True


@pytest.fixture
def pair(broker, tmp_path, guest, authority):
    made = Pair(broker, tmp_path, guest, ("5.2", "11.1"), authority=authority)
    yield made
    made.close()
    assert [agent.machines() for agent in made.agents] == [{}, {}]


class Listener:
    """What hosts say to another, as it is said."""

    def __init__(self, stranger: Stranger, topic: str) -> None:
        self.process = stranger.listen(topic, 100_000)

    def next(self) -> dict:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], 60)[0]
        told = json.loads(self.process.stdout.readline())["payload"]
        return json.loads(told) if isinstance(told, str) else told

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def test_another_host_of_the_same_authority_is_no_source(pair, authority):
    """The source's half is played here, so that a third host can come to the open port first."""
    source, destination = pair.names
    order = f"{ROOT}/hosts/{destination}/peer/{source}"
    answers = Listener(pair.strangers[0], f"{ROOT}/hosts/{source}/peer/{destination}/prepared")
    try:
        number = uuid.uuid4().hex
        body = {"move": number, "request": {"profile": "web", "name": "web"}, "uuid": new_uuid()}
        own = os.path.join(authority.folder, f"{source}-stream")
        with open(f"{own}.pem") as file:
            body["certificate"] = subject_of(file.read())
        pair.strangers[1].publish(f"{order}/prepare", json.dumps(body))
        port = answers.next()["port"]
        third, key = authority.sign("h3-stream", subject="/CN=h3-stream")
        assert is_turned_away(port, authority, third, key)
        assert is_turned_away(port, authority, third, key)
        assert not is_turned_away(port, authority, f"{own}.pem", f"{own}.key", 1.0)
        words = f"web: not {source}: {REFUSED}CN=h3-stream is denied"
        until = time.monotonic() + 60
        while words not in pair.agents[1].log():
            assert time.monotonic() < until, pair.agents[1].log()
            select.select([], [], [], 0.05)
        pair.strangers[1].publish(f"{order}/abort", json.dumps({"move": number}))
        pair.strangers[1].wait_retained("status", lambda value: no_machine(value))
    finally:
        answers.close()
    assert f"CN={source}-stream is denied" not in pair.agents[1].log()


def no_machine(status: dict) -> bool:
    return status["capacity"]["used"]["machines"] == 0


def new_uuid() -> str:
    return str(uuid.uuid4())


def test_a_source_that_comes_with_another_certificate_is_told_so(pair, authority):
    """Its certificate was replaced after it said which one it has; the guest goes on there."""
    here = pair.strangers[0]
    assert here.do("start", profile="web")["status"] == "done"
    folder = os.path.join(pair.agents[0].folder, "tls")
    saved = folder + ".old"
    shutil.copytree(folder, saved)
    stranger = authority.sign("h3-stream")
    news = Listener(here, f"{ROOT}/hosts/{pair.names[1]}/peer/{pair.names[0]}/prepare")
    # Until then the other host does not hear that it is asked, however slow we are here.
    waiting = pair.agents[1].process
    waiting.send_signal(signal.SIGSTOP)
    try:
        try:
            here.send("migrate", json.dumps({"id": "m", "machine": "web", "to": pair.names[1]}))
            assert news.next()["certificate"] == f"CN={pair.names[0]}-stream"
            for path, name in zip(stranger, ("cert", "key"), strict=True):
                shutil.copy(path, os.path.join(folder, f"client-{name}.pem"))
        finally:
            waiting.send_signal(signal.SIGCONT)
        outcome = here.do("migrate", id="m", machine="web", to=pair.names[1])
        while outcome["status"] == "running":
            outcome = here.do("migrate", id="m", machine="web", to=pair.names[1])
    finally:
        news.close()
    assert outcome["status"] == "failed", outcome
    for words in (
        f"{pair.names[1]} takes the certificate of CN={pair.names[0]}-stream only",
        f"{REFUSED}CN=h3-stream is denied",
    ):
        assert words in outcome["error"]["message"], outcome
    assert pair.running() == [0]
    shutil.rmtree(folder)
    os.rename(saved, folder)
    moved = here.do("migrate", machine="web", to=pair.names[1])
    assert (moved["status"], moved["result"]["tls"]) == ("done", True), moved
    assert pair.running() == [1]


def test_a_source_that_says_no_name_is_refused(pair):
    source, destination = pair.names
    refused = Listener(pair.strangers[0], f"{ROOT}/hosts/{source}/peer/{destination}/refused")
    try:
        body = {"move": "m1", "request": {"profile": "web", "name": "web"}, "uuid": new_uuid()}
        topic = f"{ROOT}/hosts/{destination}/peer/{source}/prepare"
        pair.strangers[1].publish(topic, json.dumps(body))
        error = refused.next()["error"]
    finally:
        refused.close()
    assert error["code"] == "certificate"
    assert f"{source} does not say which certificate it comes with" in error["message"]
