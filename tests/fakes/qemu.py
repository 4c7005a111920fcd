"""A process that takes QEMU's place where QEMU itself will not fail on request.

It takes any command line; its QMP is the socket `-chardev socket,id=qmp,fd=N` (or `--fd N`). What
it does wrong is the environment variable FAKE_QEMU: words of BEHAVIOURS, separated by commas.

A fault "at" a command happens at the first command after the negotiation that is not `quit`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import time

GREETING = {
    "QMP": {
        "version": {"qemu": {"micro": 0, "minor": 0, "major": 10}, "package": "fake"},
        "capabilities": ["oob"],
    }
}

# name → what is sent instead of the greeting; the connection stays open
GREETINGS = {
    "greeting-none": b"",
    "greeting-garbage": b"SSH-2.0-OpenSSH_9.2\r\n",
    "greeting-array": b"[]\r\n",
    "greeting-other": b'{"hello": 1}\r\n',
    "greeting-versionless": b'{"QMP": {}}\r\n',
    "greeting-half": b'{"QMP": {"version": ',
    "greeting-utf8": b'{"QMP": "\xff\xfe"}\r\n',
    "greeting-deep": b"[" * 50_000 + b"\r\n",
}

# name → what is sent instead of a reply, before the connection goes on or (…-eof) is closed
REPLIES = {
    "reply-none": b"",
    "reply-garbage": b"Segmentation fault\r\n",
    "reply-array": b"[1, 2]\r\n",
    "reply-utf8": b'{"return": "\xc3\x28"}\r\n',
    "reply-deep": b'{"return": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}\r\n",
    "reply-long-number": b'{"return": ' + b"9" * 5_000 + b"}\r\n",
    "reply-30MB": b'{"return": "' + b"x" * 30_000_000 + b'"}\r\n',
    "reply-30MB-endless": b"x" * 30_000_000,
    "reply-half": b'{"return": {"status": ',
    "reply-half-eof": b'{"return": {"status": ',
    "reply-eof": b"",
    "reply-wrong-id": b'{"return": {}, "id": "nobody"}\r\n',
    "reply-number-id": b'{"return": {}, "id": 7}\r\n',
    "reply-no-id": b'{"return": {}}\r\n',
    "reply-empty-object": b"{}\r\n",
    "reply-second-greeting": json.dumps(GREETING).encode() + b"\r\n",
    "error-no-id": b'{"error": {"class": "GenericError", "desc": "JSON parse error"}}\r\n',
}

# name → members of a reply that has the right id
ANSWERS: dict[str, dict[str, object]] = {
    "answer-neither": {},
    "answer-error-text": {"error": "no"},
    "answer-error-empty": {"error": {}},
    "answer-null": {"return": None},
    "answer-both": {"return": {}, "error": {"class": "GenericError", "desc": "both"}},
    "answer-9MB": {"return": "x" * 9_000_000},
}

# the rest: deaths, deafness, floods
OTHERS = (
    "die-before-greeting",
    "close-before-greeting",
    "event-before-capabilities",
    "capabilities-refused",
    "capabilities-none",
    "capabilities-die",
    "die-at-command",  # exit status 1
    "abort-at-command",
    "kill-at-command",
    "answer-late",  # 0.3 s after the question
    "answer-twice",
    "deaf-to-quit",
    "quit-without-answer",
    "ignores-sigterm",
    "flood-events",
    "flood-important",
    "flood-names",
    "flood-stderr",
)
BEHAVIOURS = (*GREETINGS, *REPLIES, *ANSWERS, *OTHERS)


def qmp_fd(argv: list[str]) -> int:
    if "--fd" in argv:
        return int(argv[argv.index("--fd") + 1])
    for word in argv:
        found = re.fullmatch(r"socket,(?=.*id=qmp(?:,|$)).*?fd=(\d+).*", word)
        if found:
            return int(found[1])
    sys.exit("qemu-system-fake: -mon: chardev 'qmp' not found")


class Fake:
    def __init__(self, qmp: socket.socket, does: set[str]) -> None:
        self.qmp = qmp
        self.does = does
        self.faulted = False

    def send(self, message: dict[str, object]) -> None:
        self.qmp.sendall(json.dumps(message).encode() + b"\r\n")

    def event(self, name: str, **data: object) -> None:
        now = {"seconds": int(time.time()), "microseconds": 0}
        self.send({"timestamp": now, "event": name, "data": data})

    def one_of(self, table: dict[str, object] | dict[str, bytes]) -> str | None:
        return next((name for name in table if name in self.does), None)

    def run(self) -> None:
        if "die-before-greeting" in self.does:
            sys.exit("qemu-system-fake: -device nonsense: 'nonsense' is not a valid device model")
        if "close-before-greeting" in self.does:
            self.qmp.close()
            signal.pause()
        greeting = self.one_of(GREETINGS)
        if greeting:
            self.qmp.sendall(GREETINGS[greeting])
            self.pause()
        self.send(GREETING)
        buffer = ""
        while True:
            data = self.qmp.recv(65536).decode()
            if not data:
                signal.pause()  # as QEMU, which outlives its monitor's peer
            buffer += data
            while buffer.strip():
                try:  # commands are not ended by a newline
                    request, end = json.JSONDecoder().raw_decode(buffer)
                except ValueError:
                    break
                buffer = buffer[end:].lstrip()
                self.answer(request)

    def pause(self) -> None:
        while True:
            signal.pause()

    def answer(self, request: dict[str, object]) -> None:
        command = request.get("execute", request.get("exec-oob"))
        reply = {"id": request["id"]} if "id" in request else {}
        if command == "qmp_capabilities":
            self.capabilities(reply)
        elif command == "quit":
            self.quit(reply)
        elif self.faulted:
            self.send({"return": {"asked": command}, **reply})
        else:
            self.faulted = True
            self.fault(command, reply)

    def capabilities(self, reply: dict[str, object]) -> None:
        if "capabilities-die" in self.does:
            sys.exit(1)
        if "capabilities-none" in self.does:
            return
        if "capabilities-refused" in self.does:
            self.send({"error": {"class": "GenericError", "desc": "no"}, **reply})
            return
        if "event-before-capabilities" in self.does:
            self.event("RESUME")
        self.send({"return": {}, **reply})
        self.flood()

    def quit(self, reply: dict[str, object]) -> None:
        if "deaf-to-quit" in self.does:
            return
        if "quit-without-answer" not in self.does:
            self.send({"return": {}, **reply})
            self.event("SHUTDOWN", guest=False, reason="host-qmp-quit")
        sys.exit(0)

    def fault(self, command: object, reply: dict[str, object]) -> None:
        raw, answer = self.one_of(REPLIES), self.one_of(ANSWERS)
        if raw is not None:
            self.qmp.sendall(REPLIES[raw])
            if raw.endswith("eof"):
                self.qmp.shutdown(socket.SHUT_RDWR)
        elif answer is not None:
            self.send({**ANSWERS[answer], **reply})
        elif "die-at-command" in self.does:
            sys.exit("qemu-system-fake: could not load kernel 'vmlinuz'")
        elif "abort-at-command" in self.does:
            os.abort()
        elif "kill-at-command" in self.does:
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            if "answer-late" in self.does:
                time.sleep(1.0)
            for _ in range(1 + ("answer-twice" in self.does)):
                self.send({"return": {"asked": command}, **reply})

    def flood(self) -> None:
        if "flood-events" in self.does:
            for number in range(40_000):
                self.event("GUEST_CRASHLOADED", number=number)
                if number == 20_000:
                    self.event("STOP")
        if "flood-important" in self.does:
            for number in range(20_000):
                self.event("BLOCK_IO_ERROR", number=number)
        if "flood-names" in self.does:
            for number in range(2_000):
                self.event(f"NAME_{number}")
                self.event(f"NAME_{number}")
        if "flood-stderr" in self.does:
            sys.stderr.write("qemu-system-fake: warning: first words\n")
            for number in range(50_000):
                sys.stderr.write(f"qemu-system-fake: warning: line {number}\n")
            sys.stderr.write("qemu-system-fake: last words\n")
            sys.stderr.flush()


def main() -> None:
    does = set(filter(None, os.environ.get("FAKE_QEMU", "").split(",")))
    if does - set(BEHAVIOURS):
        sys.exit(f"qemu-system-fake: cannot do {sorted(does - set(BEHAVIOURS))}")
    if "ignores-sigterm" in does:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with socket.socket(fileno=qmp_fd(sys.argv)) as qmp:
        try:
            Fake(qmp, does).run()
        except (BrokenPipeError, ConnectionResetError):
            signal.pause()


if __name__ == "__main__":
    main()
