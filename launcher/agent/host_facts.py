"""What this host can do, gathered beside the loop."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


async def gather_facts() -> dict[str, Any]:
    """The host's facts, as `qemu-launcher host --format json` has them."""
    import asyncio

    from launcher.host.facts import FORMAT, gather

    # Some facts are asked of the kernel by use, and the KVM ladder runs code for a moment.
    found = await asyncio.get_running_loop().run_in_executor(None, gather)
    return {"format": FORMAT, **found}
