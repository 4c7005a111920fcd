"""A private mosquitto on loopback, agents under test, and a stranger who has mosquitto's tools."""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import uuid
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from integration.conftest import ROOT as PROJECT
from integration.conftest import needs
from integration.ports import free_port
from launcher.cache import cache_folder
from tests.support.certificates import Authority

ROOT = "qemu-launcher/v1"
#: For one program to its end, and for what is listened to: less than pytest gives a test, and as
#: much as it can be for a machine on which all of it takes ten times as long.
SECONDS = 100


def _hashed(word: str) -> str:
    """A password as mosquitto's file has it: PBKDF2 with SHA-512."""
    salt, rounds = os.urandom(12), 101
    key = hashlib.pbkdf2_hmac("sha512", word.encode(), salt, rounds)
    return f"$7${rounds}${b64encode(salt).decode()}${b64encode(key).decode()}"


def broker_folder() -> str:
    folder = os.environ.get("QEMU_LAUNCHER_MOSQUITTO") or os.path.join(
        cache_folder(), "broker", "bin"
    )
    there = os.path.exists(os.path.join(folder, "mosquitto"))
    needs(there, "mosquitto is not there; scripts/broker brings it")
    return folder


#: Where it saves as the shipped one does: one that is killed comes back as it was a while ago.
SHIPPED = os.path.join(PROJECT, "packaging", "agent")
OPEN = """\
listener {port} {address}
listener 0 {socket}
allow_anonymous true
set_tcp_nodelay true
persistence true
persistence_location {folder}/
autosave_interval 10
autosave_on_changes false
max_queued_messages 100000
max_inflight_messages 0
log_type warning
"""


class Broker:
    """One mosquitto, which may be killed and started again on the same port.

    Args:
        folder: of its own.
        prefix: words before each command, such as those that enter a network namespace.
        address: where it listens; its certificate is for it.
        authority: who signs certificates: then the shipped mosquitto.conf and acl.conf are used,
            where the name of a certificate is its user.
        user: who the tools here are to it.
        passwords: by name; then there are users with passwords instead of certificates.
    """

    def __init__(
        self,
        folder: str,
        *,
        prefix: Sequence[str] = (),
        address: str = "127.0.0.1",
        authority: Authority | None = None,
        user: str = "orchestrator",
        passwords: dict[str, str] | None = None,
    ) -> None:
        self.tools = broker_folder()
        self.folder, self.prefix, self.address = folder, list(prefix), address
        self.authority, self.user, self.passwords = authority, user, passwords
        self.port = free_port()
        self.url = f"{'mqtts' if authority else 'mqtt'}://{address}:{self.port}"
        #: Where tests reach it from whichever namespace; only one without rules.
        self.socket = os.path.join(folder, "mosquitto.sock")
        self.config = os.path.join(folder, "mosquitto.conf")
        with open(self.config, "w") as file:
            file.write(self._shipped() if authority else OPEN.format(**vars(self)))
            if os.geteuid() == 0:
                file.write("user root\n")
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _shipped(self) -> str:
        """The configuration that is shipped, with this broker's own places."""
        assert self.authority is not None
        certificate, key = self.authority.sign("broker", f"IP:{self.address}")
        with open(os.path.join(SHIPPED, "mosquitto.conf")) as file:
            text = file.read()
        for old, new in (
            ("listener 8883", f"listener {self.port} {self.address}"),
            ("/etc/mosquitto/certs/ca.pem", self.authority.file),
            ("/etc/mosquitto/certs/broker.pem", certificate),
            ("/etc/mosquitto/certs/broker.key", key),
            ("/etc/mosquitto/acl.conf", os.path.join(SHIPPED, "acl.conf")),
        ):
            assert old in text
            text = text.replace(old, new)
        if self.passwords is not None:
            text = text.replace("require_certificate true\nuse_identity_as_username true\n", "")
            path = os.path.join(self.folder, "passwords")
            with open(path, "w") as file:
                for name, word in self.passwords.items():
                    file.write(f"{name}:{_hashed(word)}\n")
            text += f"password_file {path}\n"
        return f"{text}persistence_location {self.folder}/\nlog_type warning\n"

    def identity(self, name: str) -> list[str]:
        """What an agent of that name is told of its certificate or password."""
        assert self.authority is not None
        words = ["--ca-file", self.authority.file]
        if self.passwords is not None:
            path = os.path.join(self.folder, f"{name}.password")
            with open(path, "w") as file:
                file.write(f"{self.passwords[name]}\n")
            return [*words, "--username", name, "--password-file", path]
        certificate, key = self.authority.sign(name)
        return [*words, "--cert-file", certificate, "--key-file", key]

    def launch(self) -> None:
        """Begin it, and wait for nothing but its port: its certificate may be no good."""
        with open(os.path.join(self.folder, "mosquitto.log"), "ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, os.path.join(self.tools, "mosquitto"), "-c", self.config],
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        until = time.monotonic() + SECONDS
        while time.monotonic() < until and self.process.poll() is None:
            with socket.socket() as sock:
                if self.prefix or sock.connect_ex((self.address, self.port)) == 0:
                    return
            select.select([], [], [], 0.02)
        raise AssertionError(f"mosquitto does not listen: {self._log()}")

    def _log(self) -> str:
        with open(os.path.join(self.folder, "mosquitto.log"), errors="replace") as file:
            return file.read()[-2000:]

    def start(self) -> None:
        self.launch()
        # Its own client waits for it: connected means that it listens.
        assert self.process is not None
        until = time.monotonic() + SECONDS
        while time.monotonic() < until and self.process.poll() is None:
            done = subprocess.run(
                [*self.tool("pub"), "-t", "ready", "-m", "x"], capture_output=True, timeout=SECONDS
            )
            if done.returncode == 0:
                return
            select.select([], [], [], 0.02)
        raise AssertionError(f"mosquitto does not answer: {self._log()}")

    def kill(self, number: int = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(SECONDS)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill(signal.SIGTERM)

    def tool(self, name: str, user: str = "") -> list[str]:
        """A client of mosquitto's, up to the broker's address and who it is to it."""
        path = os.path.join(self.tools, f"mosquitto_{name}")
        words = [*self.prefix, path, "-V", "5", "-h", self.address, "-p", str(self.port)]
        if self.authority is not None:
            words += ["--cafile", self.authority.file]
            user = user or self.user
            if self.passwords is not None:
                return [*words, "-u", user, "-P", self.passwords[user]]
            base = os.path.join(self.authority.folder, user)
            if not os.path.exists(f"{base}.pem"):
                self.authority.sign(user)
            words += ["--cert", f"{base}.pem", "--key", f"{base}.key"]
        return words


class AgentProcess:
    """An agent of its own host: its runtime and state directories are its own."""

    def __init__(
        self,
        broker: Broker,
        folder: str,
        host: str,
        policy: str,
        profiles: str,
        more: Sequence[str] = (),
        prefix: Sequence[str] = (),
    ) -> None:
        self.prefix = list(prefix)
        self.broker, self.host, self.folder = broker, host, folder
        self.environment = {
            **os.environ,
            "XDG_RUNTIME_DIR": os.path.join(folder, "run"),
            "XDG_STATE_HOME": os.path.join(folder, "state"),
        }
        os.makedirs(self.environment["XDG_RUNTIME_DIR"], mode=0o700)
        self.words = ["agent", "--broker", broker.url, "--host-id", host]
        self.words += ["--policy", policy, "--profiles", profiles, *more]
        if broker.authority is not None:
            self.words += broker.identity(host)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with open(os.path.join(self.folder, "agent.log"), "ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, sys.executable, "-m", "launcher", *self.words],
                env=self.environment,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def kill(self, number: int = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(SECONDS)

    def launcher(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "launcher", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )

    def machines(self) -> dict[str, int]:
        """What runs on this host by the launcher's own records, with pids."""
        found = json.loads(self.launcher("ps", "--format", "json").stdout)["machines"]
        return {one["name"]: one["pid"] for one in found}

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill(signal.SIGTERM)
        for name in self.machines():
            self.launcher("stop", "--force", name)
        assert "Traceback" not in self.log()

    def log(self) -> str:
        with open(os.path.join(self.folder, "agent.log")) as file:
            return file.read()


class Stranger:
    """Nobody of ours: mosquitto_pub and mosquitto_sub, and what docs/agent.md says."""

    def __init__(self, broker: Broker, host: str) -> None:
        self.broker, self.host = broker, host
        self.session = f"s{uuid.uuid4().hex[:12]}"
        user = broker.user if broker.authority is not None else "stranger"
        self.reply = f"{ROOT}/reply/{user}/{self.session}"
        #: Where it says to itself that what it subscribed to is there; below its own topic, which
        #: it may write where there are rules.
        self.ready = f"{self.reply}/ready"

    def listen(self, topic: str, count: int) -> subprocess.Popen[str]:
        """A subscriber that ends after so many messages; it is subscribed when this returns."""
        # A marker that is retained comes once, and first, as soon as the subscription is there.
        self.publish(self.ready, "1", "-r")
        listener = subprocess.Popen(
            [
                *self.broker.tool("sub"),
                *("-t", self.ready, "-t", topic, "-q", "1"),
                *("-F", "%j", "-C", str(count + 1), "-W", str(SECONDS)),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert listener.stdout is not None
        if not listener.stdout.readline():
            raise AssertionError("mosquitto_sub does not subscribe")
        return listener

    def publish(self, topic: str, payload: str | bytes, *more: str) -> None:
        raw = payload.encode() if isinstance(payload, str) else payload
        subprocess.run(
            [*self.broker.tool("pub"), "-q", "1", "-t", topic, "-s" if raw else "-n", *more],
            input=raw,
            check=True,
            timeout=SECONDS,
        )

    def send(self, verb: str, payload: str | bytes, *more: str) -> None:
        answer = ("-D", "publish", "response-topic", self.reply)
        token = ("-D", "publish", "correlation-data", "token")
        self.publish(f"{ROOT}/hosts/{self.host}/command/{verb}", payload, *answer, *token, *more)

    def answers(self, verb: str, payload: str | bytes, count: int, *more: str) -> list[dict]:
        """What is answered to a payload, first to last."""
        listener = self.listen(self.reply, count)
        self.send(verb, payload, *more)
        return [one for one in _messages(listener) if one["topic"] == self.reply]

    def do(self, verb: str, **arguments: object) -> dict:
        """The final answer to a command."""
        number = arguments.pop("id", uuid.uuid4().hex)
        value = {"id": number, **arguments}
        listener = self.listen(self.reply, 1000)
        self.send(verb, json.dumps(value))
        with _lines(listener) as lines:
            for line in lines:
                found = json.loads(line)
                answer = found["payload"] if found["topic"] == self.reply else {}
                answer = json.loads(answer) if isinstance(answer, str) else answer
                final = answer.get("status") in ("done", "failed", "refused")
                if answer.get("id") == number and final:
                    return answer
        raise AssertionError(f"{verb} was not answered")

    def wait_event(self, listener: subprocess.Popen[str], kind: str) -> dict:
        """The first event of a kind that a listener hears; it ends with that."""
        heard = []
        with _lines(listener) as lines:
            for line in lines:
                one = json.loads(line)
                if one["topic"] != self.ready:
                    event = json.loads(one["payload"])
                    if event["type"] == kind:
                        return event
                    heard.append(event["type"])
        raise AssertionError(f"{kind} did not come, but {heard}")

    def retained(self, topic: str) -> dict[str, object]:
        """Retained messages by topic: all that the broker has, however long it takes."""
        # It sends what is retained in the order of the subscriptions, so the marker is the last.
        self.publish(self.ready, "1", "-r")
        listener = subprocess.Popen(
            [
                *self.broker.tool("sub"),
                *("-t", topic, "-t", self.ready, "-q", "1"),
                *("-F", "%j", "-W", str(SECONDS), "--retained-only"),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        found: dict[str, object] = {}
        with _lines(listener) as lines:
            for line in lines:
                one = json.loads(line)
                if one["topic"] == self.ready:
                    return found
                found[one["topic"]] = _payload(one)
        raise AssertionError(f"what is retained of {topic} did not come")

    def wait_retained(self, leaf: str, test: object = lambda value: True) -> object:
        """The payload of a retained topic of the host, once it passes a test."""
        topic = f"{ROOT}/hosts/{self.host}/{leaf}"
        listener = subprocess.Popen(
            [*self.broker.tool("sub"), "-t", topic, "-q", "1", "-F", "%j", "-W", str(SECONDS)],
            stdout=subprocess.PIPE,
            text=True,
        )
        with _lines(listener) as lines:
            for line in lines:
                value = _payload(json.loads(line))
                if test(value):
                    return value
        raise AssertionError(f"{topic} never was as it should be")


@contextmanager
def _lines(listener: subprocess.Popen[str]) -> Iterator[IO[str]]:
    """What a listener prints, which ends with the block."""
    assert listener.stdout is not None
    try:
        yield listener.stdout
    finally:
        listener.kill()
        listener.wait()
        listener.stdout.close()


def _payload(one: dict) -> object:
    found = one["payload"]
    return json.loads(found) if isinstance(found, str) and found[:1] == "{" else found


def _messages(listener: subprocess.Popen[str]) -> list[dict]:
    assert listener.stdout is not None
    found = [json.loads(line) for line in listener.stdout]
    listener.wait()
    listener.stdout.close()
    return [{**one, "answer": _payload(one)} for one in found]
