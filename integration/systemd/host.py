"""A guest whose process 1 is systemd, and what a test asks of it."""

from __future__ import annotations

import json
import shlex
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import launcher.sync

#: Seconds for one command, and for what is waited for: a QEMU under TCG runs in a QEMU under TCG.
PATIENCE = 300.0


class Host:
    """Commands there; each one that fails is an error."""

    def __init__(self, machine: launcher.sync.Machine) -> None:
        self.machine = machine

    def sh(self, line: str, *, ok: bool = True) -> str:
        """What a line of shell writes.

        Raises:
            GuestError: it exits with another status than 0 and `ok` is not False.
        """
        ran = self.machine.guest.run(f"{{ {line}\n}} 2>&1", timeout=PATIENCE)
        if ok:
            ran.check()
        return ran.stdout.strip()

    def until(self, line: str, wanted: str) -> float:
        """Wait until a line of shell writes just that; how many seconds it took."""
        begun = time.monotonic()
        while (last := self.sh(line, ok=False)) != wanted:
            assert time.monotonic() - begun < PATIENCE, f"{line}: {last!r} and never {wanted!r}"
            time.sleep(0.5)  # nothing in the guest tells; up to PATIENCE
        return time.monotonic() - begun

    def show(self, unit: str, name: str) -> str:
        """A property of a unit, in systemd's words."""
        return self.sh(f"systemctl show -P {name} {unit}")

    def write(self, path: str, text: str) -> None:
        """A file that everybody may read."""
        self.sh(f"mkdir -p $(dirname {path}) && printf %s {shlex.quote(text)} > {path}")

    def profile(self, name: str, text: str) -> None:
        """A profile where the units look for it."""
        self.write(f"/etc/qemu-launcher/profiles/{name}.yaml", text)

    def qemus(self, unit: str) -> list[int]:
        """The pids of the QEMUs in a unit's control group, as the kernel has it."""
        group = f"/sys/fs/cgroup$(systemctl show -P ControlGroup {unit})/cgroup.procs"
        named = '[ "$(cat /proc/$p/comm)" = qemu-system-x86 ] && echo $p'
        found = self.sh(f"for p in $(cat {group} 2>/dev/null); do {named}; done; :")
        return [int(word) for word in found.split()]

    def running(self) -> list[int]:
        """The pids of all QEMUs."""
        return [int(word) for word in self.sh("pgrep qemu-system; :").split()]

    def retained(self, topic: str) -> Any:
        """What a broker there retains."""
        line = f"mosquitto_sub -V 5 -W 20 -C 1 -t qemu-launcher/v1/hosts/systest/{topic}"
        text = self.sh(line, ok=False)
        return json.loads(text) if text.startswith("{") else text

    def command(self, verb: str, **words: Any) -> dict[str, Any]:
        """The last answer to a command of an agent there."""
        topic = f"qemu-launcher/v1/hosts/systest/command/{verb}"
        answers = f"qemu-launcher/v1/reply/test/{words['id']}"
        ended = '"status": ?"(done|failed|refused)"'
        # mosquitto_rr ends after the first answer, so the listener is another one.
        text = self.sh(
            f"mosquitto_sub -V 5 -q 1 -W 120 -t {answers} > /tmp/answers & listener=$!; sleep 1; "
            f"mosquitto_pub -V 5 -q 1 -t {topic} -D publish response-topic {answers} "
            f"-m {shlex.quote(json.dumps(words))}; "
            f"for i in $(seq 240); do grep -Eq '{ended}' /tmp/answers && break; sleep 0.5; done; "
            "kill $listener; tail -n 1 /tmp/answers"
        )
        answer: dict[str, Any] = json.loads(text.splitlines()[-1])
        return answer
