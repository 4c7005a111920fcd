"""The matrix of releases as one HTML page that needs nothing else: no network, no other file.

The page is page.html with page.css, page.js and the matrix put into it. The matrix is JSON in a
block that is not run; page.js makes text of it, never markup. The page's own policy (CSP) lets run
nothing but these two pieces, by their hashes, and lets nothing be fetched.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

#: What stands in page.js for a cell without a value.
_STATES = {"absent": -1, "unseen": -2}
_CHANGES = ("changed", "appeared", "gone")
_COVERS = ("uncovered", "covered", "waived")


def page(found: dict[str, Any], pair: tuple[str, str] | None = None) -> str:
    """The page of `launcher.drift.matrix`'s result; the same bytes for the same result.

    Args:
        found: as `matrix` makes it.
        pair: names of the two releases that were compared, to be pointed out; None for all.

    Raises:
        ValueError: `pair` names a release that is not in the matrix.
    """
    import json

    data = json.dumps(packed(found, pair), separators=(",", ":"))
    style, script = _part("page.css"), _part("page.js")
    shell = _part("page.html")
    shell = shell.replace("{{policy}}", _policy(style, script))
    shell = shell.replace("{{style}}", style).replace("{{script}}", script)
    # Last, so that nothing is looked for in what QEMU said. No `<`, so that nothing ends the block.
    return shell.replace("{{data}}", data.replace("<", "\\u003c"))


def packed(found: dict[str, Any], pair: tuple[str, str] | None) -> dict[str, Any]:
    """The matrix with each word, value and cause written once: a tenth of its size.

    Rows are `[family, type, property, facet, cells, steps]`, in numbers: the first four of `words`,
    cells of `values` (one number when all are the same), steps `[change, cover, cause]`; 0 is no
    step, and all steps when there is none. A cause is a number of `causes`, -1 for none.
    """
    words, values, causes = _Once(), _Once(), _Once()
    names = [one["name"] for one in found["releases"]]
    rows = []
    for row in found["rows"]:
        cells = [_STATES.get(c["state"], values.number(c["value"])) for c in row["cells"]]
        steps = [_step(step, causes) for step in row["steps"]]
        rows.append(
            [
                *(words.number(row[key]) for key in ("family", "type", "property", "facet")),
                cells[0] if len(set(cells)) == 1 else cells,
                steps if any(steps) else 0,
            ]
        )
    return {
        "releases": found["releases"],
        "counts": [one["counts"] for one in found["pairs"]],
        "pair": None if pair is None else _span(names, pair),
        "words": words.all,
        "values": values.all,
        "causes": causes.all,
        "rows": rows,
    }


def _step(step: dict[str, Any] | None, causes: _Once) -> list[int] | int:
    if step is None:
        return 0
    cause = -1 if step["by"] is None else causes.number(step["by"])
    return [_CHANGES.index(step["change"]), _COVERS.index(step["cover"]), cause]


def _span(names: Sequence[str], pair: tuple[str, str]) -> list[int]:
    """The columns of a pair, older first; two builds of one release have the same name."""
    first, second = names.index(pair[0]), names.index(pair[1])
    if first == second:
        second = len(names) - 1 - list(reversed(names)).index(pair[1])
    return sorted((first, second))


class _Once:
    """JSON values in the order in which they were first seen; unlike Python, 1 is not true."""

    def __init__(self) -> None:
        self.all: list[Any] = []
        self._numbers: dict[tuple[type, Any], int] = {}

    def number(self, value: Any) -> int:
        import json

        nested = isinstance(value, (dict, list))
        key = (type(value), json.dumps(value, sort_keys=True) if nested else value)
        found = self._numbers.get(key)
        if found is None:
            found = self._numbers[key] = len(self.all)
            self.all.append(value)
        return found


def _policy(style: str, script: str) -> str:
    """A content security policy under which only these two run, and nothing is fetched."""
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    import base64
    import hashlib

    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _part(name: str) -> str:
    """A piece of the page, kept beside this module and read as the module itself is."""
    import pkgutil

    content = pkgutil.get_data(__package__, name)
    assert content is not None
    return content.decode()
