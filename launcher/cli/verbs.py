"""The verbs, and the page that `--help` shows: a table, so that it costs no import."""

from __future__ import annotations

#: verb → (module in this folder, what it does, an example).
VERBS: dict[str, tuple[str, str, str]] = {
    "run": (
        "run",
        "start a machine, prove it, let the guest run and show its console",
        "qemu-launcher run profiles/microvm-demo.yaml --platform debian-12",
    ),
    "plan": (
        "plan",
        "show the command line, and with --explain who set each value",
        "qemu-launcher plan web.yaml --platform debian-12 --explain",
    ),
    "check": (
        "check",
        "check profiles, and tell all mistakes of all of them",
        "qemu-launcher check profiles/*.yaml",
    ),
    "verify": (
        "verify",
        "prove a profile without running the guest, or a machine that runs",
        "qemu-launcher verify web.yaml --format json",
    ),
    "lock": (
        "lock",
        "write down what a profile becomes, or tell what moved since",
        "qemu-launcher lock web.yaml && qemu-launcher run --locked web.yaml",
    ),
    "preflight": (
        "preflight",
        "tell what would break a migration, and what cures it, before a byte is sent",
        "qemu-launcher preflight web.yaml --from OLD/qemu-system-x86_64 --to qemu-system-x86_64",
    ),
    "migrate": (
        "migrate",
        "rehearse a migration between two QEMUs on this host",
        "qemu-launcher migrate web.yaml --from OLD/qemu-system-x86_64 --to qemu-system-x86_64",
    ),
    "save": (
        "saved",
        "save a running machine to a file, with its lock, and end it",
        "qemu-launcher save web web.state",
    ),
    "restore": (
        "saved",
        "start a machine under a saved state's lock and let its guest go on",
        "qemu-launcher restore web.state --qemu qemu-system-x86_64",
    ),
    "platform": (
        "platforms",
        "list platforms, show what one pins, compare two, find what hosts share",
        "qemu-launcher platform diff debian-12 debian-13",
    ),
    "host": ("host", "what this host can do", "qemu-launcher host kvm io_uring"),
    "drift": (
        "drift",
        "what differs between two QEMU binaries, and what covers it",
        "qemu-launcher drift qemu-7.2 qemu-10.0",
    ),
    "record": (
        "drift",
        "write what can be read of a QEMU binary to a file",
        "qemu-launcher record qemu-system-x86_64 -o qemu.json",
    ),
    "ps": ("machines", "the machines of this user", "qemu-launcher ps --format json"),
    "stop": ("machines", "stop machines, the kind way first", "qemu-launcher stop web"),
    "console": (
        "talk",
        "the serial console of a detached machine",
        "qemu-launcher console web",
    ),
    "qmp": (
        "talk",
        "send one QMP command to a machine",
        "qemu-launcher qmp web query-status",
    ),
    "agent": (
        "agent",
        "serve this host's machines behind an MQTT broker",
        "qemu-launcher agent --broker mqtts://broker.example --profiles /etc/qemu-launcher",
    ),
    "fleet": (
        "fleet",
        "the hosts behind a broker: list, start, verify, migrate, drain, watch",
        "qemu-launcher fleet ls --broker mqtts://broker.example",
    ),
    "schema": (
        "schema",
        "the JSON Schema of profiles, for editors",
        "qemu-launcher schema --qemu qemu-system-x86_64 > profile.schema.json",
    ),
    "completion": (
        "schema",
        "completion for a shell (needs shtab)",
        'eval "$(qemu-launcher completion bash)"',
    ),
}

_OPENING = """\
usage: qemu-launcher VERB [OPTIONS]
       qemu-launcher VERB --help

Start QEMU with versioned defaults for everything that is not a device, and
prove them over QMP before the guest runs.

verbs:
"""

_CLOSING = """
example:
  qemu-launcher run profiles/microvm-demo.yaml --platform debian-12

exit status:
  0  fine                               3  QEMU failed
  1  a verdict or a check failed        4  this host cannot run it
  2  bad input                        130  interrupted
"""


def overview() -> str:
    """The page of `qemu-launcher --help`."""
    lines = [f"  {name:<11} {what}\n" for name, (_module, what, _example) in VERBS.items()]
    return _OPENING + "".join(lines) + _CLOSING
