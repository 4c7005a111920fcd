"""Golden files: compared, or written on request; one that nobody compared fails the run."""

from __future__ import annotations

import difflib
import os

import pytest

from tests.support.records import ROOT

FOLDER = os.path.join(ROOT, "tests", "golden")


class Goldens:
    """The golden files of one test module, by name below `tests/golden`."""

    def __init__(self, config: pytest.Config) -> None:
        self.update = bool(config.getoption("--update-golden"))
        self.compared: set[str] = set()

    def check(self, name: str, text: str) -> None:
        """Fail unless the file `name` holds exactly `text`."""
        assert name not in self.compared, f"two cases share the golden file {name}"
        self.compared.add(name)
        path = os.path.join(FOLDER, name)
        if self.update:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            return
        if not os.path.exists(path):
            pytest.fail(f"there is no golden file {name}: --update-golden writes it")
        with open(path, encoding="utf-8") as file:
            wanted = file.read()
        if wanted != text:
            lines = difflib.unified_diff(
                wanted.splitlines(), text.splitlines(), name, "now", lineterm=""
            )
            pytest.fail("\n".join(lines), pytrace=False)


def orphans(expected: set[str], *, below: str, endings: tuple[str, ...]) -> list[str]:
    """Files below a folder of the goldens that no case uses."""
    top = os.path.join(FOLDER, below)
    found = {
        os.path.relpath(os.path.join(folder, name), FOLDER)
        for folder, _, names in os.walk(top)
        for name in names
        if name.endswith(endings)
    }
    return sorted(found - expected)
