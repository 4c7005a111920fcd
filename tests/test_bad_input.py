"""What a user reads after a mistake: `tests/golden/errors/NAME.yaml` gives `NAME.err`.

Comments at the top of a case say how it is run:

    # qemu: 7.2              the recorded release (10.0)
    # platform: debian-11    as --platform
    # set: smp=two           as --set, once for each line
    # host: kvm=trap         the accelerator ladder fails; `tun-uso=no`: the host lacks a feature
    # exit: 4                the exit status (2)
"""

from __future__ import annotations

import os
import re
import time

import pytest

from launcher.errors import InputErrors, LauncherError
from tests.support.goldens import FOLDER, Goldens, orphans
from tests.support.records import KVM_TRAP, KVM_WORKS, RELEASES, plan_of, profile_from
from tests.support.render import error_golden

pytestmark = pytest.mark.hermetic

ERRORS = os.path.join("tests", "golden", "errors")
CASES = sorted(
    name.removesuffix(".yaml")
    for name in os.listdir(os.path.join(FOLDER, "errors"))
    if name.endswith(".yaml")
)
_HEADER = re.compile(r"# (qemu|platform|set|host|exit): (.+)")


def _headers(path: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            matched = _HEADER.fullmatch(line.rstrip("\n"))
            if matched is None:
                break
            found.setdefault(matched[1], []).append(matched[2])
    return found


def _run(path: str, headers: dict[str, list[str]]) -> LauncherError:
    """The error that the profile at `path` ends in, within a second."""
    facts: dict[str, object] = {}
    for fact in headers.get("host", ()):
        name, _, value = fact.partition("=")
        if name == "kvm":
            facts["kvm"] = {"trap": KVM_TRAP, "works": KVM_WORKS}[value]
        else:
            facts[name.replace("-", "_")] = (False, f"the kernel has no {name}")
    release = headers.get("qemu", ["10.0"])[0]
    assert release in RELEASES
    settings = tuple(headers.get("set", ()))
    started = time.process_time()  # ours: others may use the CPUs, too
    try:
        plan_of(profile_from(path, settings, headers.get("platform", [""])[0]), release, **facts)
    except LauncherError as error:
        assert time.process_time() - started < 1
        return error
    pytest.fail("there is a plan")


def _check(error: LauncherError, name: str, headers: dict[str, list[str]], goldens: Goldens) -> str:
    assert error.exit_status == int(headers.get("exit", ["2"])[0])
    for one in error.mistakes if isinstance(error, InputErrors) else [error]:
        assert one.place is not None, f"no place: {one.message}"
        assert "\n" not in one.message + one.hint
    text = error_golden(error)
    told = [line for line in text.splitlines() if not line.startswith("  hint: ")]
    assert len(told) == len(set(told)), "the same mistake is told twice"
    return text


@pytest.fixture(scope="module")
def goldens(request):
    return Goldens(request.config)


@pytest.mark.parametrize("name", CASES)
def test_mistake(name, goldens):
    path = os.path.join(ERRORS, f"{name}.yaml")
    headers = _headers(path)
    text = _check(_run(path, headers), name, headers, goldens)
    goldens.check(f"errors/{name}.err", text)


# -- files that a repository cannot hold ----------------------------------------------------------


def _missing(folder: str) -> str:
    with open(os.path.join(folder, "profile.yaml"), "w", encoding="utf-8") as file:
        file.write("platform: debian-12\n")
    return "profil.yaml"


def _directory(folder: str) -> str:
    os.mkdir(os.path.join(folder, "profile.yaml"))
    return "profile.yaml"


def _fifo(folder: str) -> str:
    os.mkfifo(os.path.join(folder, "profile.yaml"))
    return "profile.yaml"


def _latin1(folder: str) -> str:
    with open(os.path.join(folder, "profile.yaml"), "wb") as file:
        file.write(b"platform: debian-12\nname: caf\xe9\n")
    return "profile.yaml"


def _binary(folder: str) -> str:
    with open(os.path.join(folder, "profile.yaml"), "wb") as file:
        file.write(b"\x7fELF\x02\x01\x01\0\0\0")
    return "profile.yaml"


def _huge(folder: str) -> str:
    with open(os.path.join(folder, "profile.yaml"), "w", encoding="utf-8") as file:
        file.write("platform: debian-12\n" + "# filler\n" * 34_000)
    return "profile.yaml"


def _link_loop(folder: str) -> str:
    os.symlink("profile.yaml", os.path.join(folder, "profile.yaml"))
    return "profile.yaml"


def _through_a_file(folder: str) -> str:
    with open(os.path.join(folder, "web"), "w", encoding="utf-8") as file:
        file.write("platform: debian-12\n")
    return "web/profile.yaml"


def _long_name(_folder: str) -> str:
    return "n" * 300


def _null_byte(_folder: str) -> str:
    return "profile\0.yaml"


def _deep_bases(folder: str) -> str:
    for number in range(20):
        with open(os.path.join(folder, f"{number}.yaml"), "w", encoding="utf-8") as file:
            file.write(f"extends: {number + 1}.yaml\n")
    return "0.yaml"


MADE = {
    "made-binary": _binary,
    "made-deep-bases": _deep_bases,
    "made-directory": _directory,
    "made-fifo": _fifo,
    "made-huge": _huge,
    "made-latin1": _latin1,
    "made-link-loop": _link_loop,
    "made-long-name": _long_name,
    "made-missing": _missing,
    "made-null-byte": _null_byte,
    "made-through-a-file": _through_a_file,
}


@pytest.mark.parametrize("name", MADE)
def test_made_file(name, tmp_path, goldens):
    path = os.path.join(tmp_path, MADE[name](str(tmp_path)))
    text = _check(_run(path, {}), name, {}, goldens)
    goldens.check(f"errors/{name}.err", text.replace(f"{tmp_path}/", ""))


def test_endless_file_ends():
    """`/dev/zero` and `/dev/tty` are not read at all."""
    assert "is not a regular file" in _run("/dev/zero", {}).message


# -- the collection -------------------------------------------------------------------------------


def test_there_are_enough_cases():
    assert len(CASES) + len(MADE) >= 70


def test_no_golden_error_is_unused():
    expected = {f"errors/{name}.err" for name in (*CASES, *MADE)}
    assert orphans(expected, below="errors", endings=(".err",)) == []


def test_every_part_is_used():
    """The files that cases name with `parts/…`."""
    folder = os.path.join(FOLDER, "errors")
    text = ""
    for below in ("", "parts"):
        for name in os.listdir(os.path.join(folder, below)):
            if name.endswith(".yaml"):
                with open(os.path.join(folder, below, name), encoding="utf-8") as file:
                    text += file.read()
    parts = os.listdir(os.path.join(folder, "parts"))
    assert [part for part in parts if part not in text] == []


def test_no_two_cases_are_the_same():
    seen: dict[str, str] = {}
    for name in CASES:
        with open(os.path.join(FOLDER, "errors", f"{name}.yaml"), encoding="utf-8") as file:
            text = file.read()
        assert text not in seen, f"{name} repeats {seen.get(text)}"
        seen[text] = name
