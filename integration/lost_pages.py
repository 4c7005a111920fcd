"""Guests that QEMU harms while it sends them, told apart from what the launcher does to them.

Before 9.0 a QEMU under tcg now and then loses a page that the guest writes while it is sent
(docs/migration.md): about one move in four hundred on a busy machine. The guest's kernel dies of it
at the destination. That guest is no evidence about the launcher, so its test is done once more.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

#: The releases of the matrix that do so.
LOSES_PAGES = ("5.2", "7.2")
#: What a kernel says at its end, whatever memory it fell over.
_DIED = ("Kernel panic", "Oops", "BUG: ")


class LostPageError(AssertionError):
    """The guest's kernel died after a move."""


def check_kernel(console: str) -> None:
    """Raise LostPageError when the kernel on that console has died."""
    if any(word in console for word in _DIED):
        raise LostPageError(console[-2000:])


def once_more_after_a_lost_page(
    test: Callable[..., Awaitable[None]],
) -> Callable[..., Awaitable[None]]:
    """A test with a parameter `old`: the release that sends the guest."""

    @functools.wraps(test)
    async def tried(*, old: str, **fixtures: Any) -> None:
        try:
            await test(old=old, **fixtures)
        except LostPageError as lost:
            if old not in LOSES_PAGES:
                raise
            print(f"QEMU {old} lost a page of its guest's:\n{lost}")
            await test(old=old, **fixtures)

    return tried
