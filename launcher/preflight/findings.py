"""What a preflight finds: differences with their effect and their cure, as text and as JSON."""

from __future__ import annotations

from launcher.display import printable
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

SEVERITIES = ("breaks", "risks", "harmless")


@record
class Cure:
    """One way to mend a difference.

    `end` is `source`, `destination` or `both`. Either `platform` is named, or a property with
    the value that it needs; `text` is one line for a reader.
    """

    end: str
    text: str
    family: str = ""
    type: str = ""
    id: str = ""
    property: str = ""
    value: str = ""
    platform: str = ""

    def as_json(self) -> dict[str, Any]:
        """The cure with what is known of it."""
        names = ("end", "text", "family", "type", "id", "property", "value", "platform")
        return {name: getattr(self, name) for name in names if getattr(self, name)}


@record
class Finding:
    """One difference between the two ends of a migration.

    `source` and `destination` are the two values, None where there is none. `words` is what QEMU
    says when it comes to that, in which `…` stands for what varies; `also` are its words in other
    releases. Each of `cures` is enough; without any nothing cures it.
    """

    code: str
    severity: str
    family: str
    type: str
    id: str
    property: str
    source: Any
    destination: Any
    message: str
    words: str = ""
    cures: tuple[Cure, ...] = ()
    ref: str = ""
    also: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The shape of one row of `preflight --format json`."""
        return {
            "code": self.code,
            "severity": self.severity,
            "family": self.family,
            "type": self.type,
            "id": self.id,
            "property": self.property,
            "source": self.source,
            "destination": self.destination,
            "message": self.message,
            "qemu": self.words or None,
            "cures": [cure.as_json() for cure in self.cures],
            "ref": self.ref,
        }


def breaks(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings with which the migration cannot succeed."""
    return tuple(f for f in findings if f.severity == "breaks")


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sorted by severity, each once."""
    return tuple(sorted(dict.fromkeys(findings), key=lambda f: SEVERITIES.index(f.severity)))


def counts(findings: Iterable[Finding]) -> dict[str, int]:
    """How many findings have each severity."""
    found = dict.fromkeys(SEVERITIES, 0)
    for finding in findings:
        found[finding.severity] += 1
    return found


def explain(findings: Iterable[Finding], words: str) -> tuple[Finding, ...]:
    """The findings whose words are among what QEMU said when a migration failed."""
    return tuple(f for f in findings if any(_fits(p, words) for p in (f.words, *f.also)))


def _fits(pattern: str, words: str) -> bool:
    """Whether the pieces of a pattern stand in `words`, in their order, on one line."""
    pieces = [piece.strip() for piece in pattern.split("…") if piece.strip()]
    return any(_stand(pieces, line) for line in words.splitlines()) if pieces else False


def _stand(pieces: list[str], line: str) -> bool:
    for piece in pieces:
        _, found, line = line.partition(piece)
        if not found:
            return False
    return True


def findings_text(findings: Iterable[Finding]) -> str:
    """The findings for a terminal: a line each, with effect, QEMU's words and cures below it."""
    lines = []
    for one in findings:
        lines.append(f"{one.severity}: {printable(one.message)}")
        if one.words:
            lines.append(f"  QEMU says: {printable(one.words)}")
        lines += [f"  {word} {printable(c.text)}" for word, c in zip(_cure_words(one), one.cures)]  # noqa: B905 (endless)
        if not one.cures and one.severity == "breaks":
            lines.append("  nothing cures it")
    return "\n".join(lines)


def _cure_words(one: Finding) -> Iterable[str]:
    return ("cure:", *(["or:"] * len(one.cures)))
