"""What of a migration needs no QEMU: addresses, progress, counters, names of certificates."""

from __future__ import annotations

import base64

import pytest

from launcher.errors import InputError
from launcher.migrate import Migration, MigrationError, Via, follow, parse_via
from launcher.migrate.certificate import fits, names_of, subject_of
from launcher.migrate.counter import pattern_of
from launcher.migrate.model import progress_of
from launcher.migrate.transport import arguments, knows_file
from tests.support.records import capabilities_of

RELEASES = ("5.2", "7.2", "10.0", "11.1")

#: For host-b.example, *.lab.example, 127.0.0.1 and fe80::1; its key was thrown away.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBvzCCAWWgAwIBAgIUbBH366ROx+ezt7uXJdCUcOs1XpcwCgYIKoZIzj0EAwIw
EjEQMA4GA1UEAwwHaWdub3JlZDAgFw0yNjExMjMyMjI2NTlaGA8yMTI2MTAzMDIy
MjY1OVowEjEQMA4GA1UEAwwHaWdub3JlZDBZMBMGByqGSM49AgEGCCqGSM49AwEH
A0IABH6ASn1I1TxBMod908YqXwW5y/NfzBKRw/5yavDXt8HzlzZ/QRnx2oFnBbQi
JOc0hruhJXODCJLpg+ytBnFDfwOjgZYwgZMwHQYDVR0OBBYEFL+izo89QRafMGFB
Himz6s/sIEqeMB8GA1UdIwQYMBaAFL+izo89QRafMGFBHimz6s/sIEqeMA8GA1Ud
EwEB/wQFMAMBAf8wQAYDVR0RBDkwN4IOaG9zdC1iLmV4YW1wbGWCDSoubGFiLmV4
YW1wbGWHBH8AAAGHEP6AAAAAAAAAAAAAAAAAAAEwCgYIKoZIzj0EAwIDSAAwRQIh
AJRwCC/qza1/PDbkTMSUcGv1t9sS+GboTTbdWe5QUaKgAiAZ6Pc0haTxuZToCB2Z
X2fsC9WEpBxqJKDba9SAZaSb4A==
-----END CERTIFICATE-----
"""


# -- the guest's counter --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "verdict", "moved"),
    [
        ("tick 1\r\ntick 2\r\n", "tick 3\r\n", "continues", 3),
        ("tick 1\ntick 1", "1\ntick 2\n", "broken", 11),
        ("tick 9\nti", "ck 10\n", "continues", 10),
        ("tick 9\ntick 1", "0\ntick 11\n", "continues", 10),
        ("tick 1\ntick 2\n", "tick 2\n", "broken", 2),
        ("tick 1\ntick 2\n", "tick 4\n", "broken", 4),
        ("tick 1\ntick 2\n", "tick 1\n", "broken", 1),
        ("tick 1\ntick 3\n", "tick 4\n", "broken", 4),
        ("tick 1\ntick 2\n", "", "stopped", None),
        ("tick 1\ntick 2\n", "tick 3", "stopped", None),
        ("", "tick 1\ntick 2\n", "absent", None),
        ("no number\n", "none here\n", "absent", None),
        ("tick 1\nsomething else\n", "tick 2\n", "continues", 2),
    ],
)
def test_a_counter_continues_only_without_a_gap_or_a_repeat(before, after, verdict, moved):
    found = follow(before, after)
    assert found.verdict == verdict
    if verdict != "absent":
        assert found.moved == moved
    assert bool(found.faults) == (verdict == "broken")


def test_a_counter_says_what_it_proves():
    assert "first at the destination" in str(follow("tick 1\n", "tick 2\n"))
    assert "does not run at the destination" in str(follow("tick 1\n", ""))
    assert "2 is followed by 4" in str(follow("tick 2\n", "tick 4\n"))
    assert "not proved" in str(follow("", ""))


def test_a_counter_may_have_other_words():
    assert follow("n=1;\n", "n=2;\n", r"n=(\d+);").verdict == "continues"


@pytest.mark.parametrize("pattern", [r"tick \d+", r"(tick) (\d+)"])
def test_a_counter_has_one_group(pattern):
    with pytest.raises(ValueError, match="one group"):
        pattern_of(pattern)


# -- transports -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "via"),
    [
        ("unix", Via("unix")),
        ("unix:/run/m", Via("unix", "/run/m")),
        ("tcp", Via("tcp")),
        ("tcp:host-b:4444", Via("tcp", host="host-b", port=4444)),
        ("tcp:[fe80::1]:4444", Via("tcp", host="fe80::1", port=4444)),
        ("file:/var/tmp/state", Via("file", "/var/tmp/state")),
        ("fd", Via("fd")),
    ],
)
def test_a_transport_reads_and_writes_itself(text, via):
    assert parse_via(text) == via
    assert parse_via(str(via)) == via


@pytest.mark.parametrize(
    "text",
    [
        *("", "rdma", "exec:cat", "unix:", "fd:3", "tcp:host-b", "tcp:host-b:http", "tcp::1"),
        *("tcp:host-b:70000", f"unix:/{'x' * 107}", "file:"),
    ],
)
def test_what_is_no_transport(text):
    with pytest.raises(InputError) as caught:
        parse_via(text)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("command", ["migrate", "migrate-incoming"])
def test_each_binary_is_told_in_its_own_form(release, command):
    capabilities = capabilities_of(release)
    told = [
        arguments(capabilities, command, parse_via(text))
        for text in ("unix:/run/m", "tcp:[::1]:4444", "fd", "file:/s")
    ]
    if release in ("5.2", "7.2"):
        uris = ["unix:/run/m", "tcp:[::1]:4444", "fd:migration", "file:/s"]
        assert told == [{"uri": uri} for uri in uris]
        assert not knows_file(capabilities)
    else:
        addresses = [one["channels"][0]["addr"] for one in told]
        assert addresses[0] == {"transport": "socket", "type": "unix", "path": "/run/m"}
        assert (addresses[1]["host"], addresses[1]["port"]) == ("::1", "4444")
        assert addresses[3] == {"transport": "file", "filename": "/s", "offset": 0}
        assert knows_file(capabilities)


# -- progress and outcome -------------------------------------------------------------------------


def test_progress_is_in_bytes():
    ram = {
        "transferred": 10,
        "remaining": 20,
        "total": 30,
        "mbps": 8.0,
        "dirty-pages-rate": 2,
        "page-size": 4096,
    }
    found = progress_of({"status": "active", "ram": ram, "expected-downtime": 300}, 1.5)
    assert (found.transferred, found.remaining, found.total) == (10, 20, 30)
    assert (found.rate, found.dirty_rate, found.downtime) == (1_000_000, 8192, 300)
    assert progress_of({}, 0.0).status == "none"
    assert progress_of({"downtime": 5, "expected-downtime": 300}, 0.0).downtime == 5


@pytest.mark.parametrize(("result", "status"), [("refused", 1), ("failed", 3), ("cancelled", 3)])
def test_what_a_migration_that_failed_exits_with(result, status):
    assert MigrationError("words", migration=Migration(result, "unix")).exit_status == status
    assert MigrationError("words").exit_status == 3


# -- certificates ---------------------------------------------------------------------------------


def test_the_names_of_a_certificate():
    names = names_of(f"words before it\n{CERTIFICATE}")
    assert names == ("host-b.example", "*.lab.example", "127.0.0.1", "fe80::1")
    for name in ("host-b.example", "HOST-B.example.", "a.lab.example", "127.0.0.1", "fe80::1"):
        assert fits(name, names), name
    for name in ("host-a.example", "lab.example", "b.a.lab.example", "127.0.0.2", "host-b"):
        assert not fits(name, names), name


def test_what_is_no_certificate():
    body = CERTIFICATE.replace("\n", "").split("-----")[2]
    short = base64.b64encode(base64.b64decode(body)[:200]).decode()
    for text in ("", "words", "-----BEGIN CERTIFICATE-----"):
        with pytest.raises(ValueError, match="no certificate"):
            names_of(text)
    with pytest.raises(ValueError, match="damaged"):
        names_of(f"-----BEGIN CERTIFICATE-----{short}-----END CERTIFICATE-----")


def test_a_certificate_without_names():
    body = base64.b64encode(bytes.fromhex("3003020101")).decode()
    assert names_of(f"-----BEGIN CERTIFICATE-----{body}-----END CERTIFICATE-----") == ()


def test_the_subject_of_a_certificate():
    """What else a name may hold is tried against QEMU's own words: test_agent_migrate_tls."""
    assert subject_of(CERTIFICATE) == "CN=ignored"


def certificate(*attributes: bytes) -> str:
    """A certificate with no more of it than its subject's attributes, each a SET of one."""
    subject = der(0x30, *(der(0x31, der(0x30, one)) for one in attributes))
    number = der(0x02, b"\1")
    signed = der(0x30, number, der(0x30), der(0x30), der(0x30), subject)
    body = base64.b64encode(der(0x30, signed)).decode()
    return f"-----BEGIN CERTIFICATE-----{body}-----END CERTIFICATE-----"


def der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return bytes((tag, len(content))) + content


CN = der(0x06, b"\x55\x04\x03")


@pytest.mark.parametrize(
    "attribute",
    [der(0x06, b"\x55\x04\x61") + der(0x0C, b"x"), CN + der(0x1E, b"\0x"), CN + der(0x0C, b"a\0b")],
    ids=["attribute", "encoding", "nul"],
)
def test_a_subject_that_gnutls_may_write_otherwise_is_none(attribute):
    with pytest.raises(ValueError, match="a part that is not known"):
        subject_of(certificate(attribute))
    assert subject_of(certificate(CN + der(0x0C, b"h1"))) == "CN=h1"


def test_a_certificate_without_a_subject_is_damaged():
    body = base64.b64encode(bytes.fromhex("3003020101")).decode()
    with pytest.raises(ValueError, match="damaged"):
        subject_of(f"-----BEGIN CERTIFICATE-----{body}-----END CERTIFICATE-----")
