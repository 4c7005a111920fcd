"""Text of others (QEMU, a guest, a file's name) made fit to be shown. Pure."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` as one line that cannot steer a terminal or forge a line of a log.

    Everything that Unicode does not call printable is escaped: C0 and C1 controls, line
    separators, marks that reverse the direction of writing, lone surrogates.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )
