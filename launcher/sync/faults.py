"""What QEMU can do to a guest, as programs without asyncio see it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher import faults
    from launcher.sync.thread import Caller


class Faults:
    """Faults of one machine; see `launcher.faults.Faults` for what each is and raises."""

    def __init__(self, inner: faults.Faults, thread: Caller) -> None:
        self._inner = inner
        self._thread = thread

    def link(self, name: str, *, up: bool) -> None:
        """Pull a network cable, or put it back."""
        self._thread.call(self._inner.link(name, up=up))

    def inject_error(self, device: str, *rules: dict[str, Any], **rule: Any) -> None:
        """Have a disk's requests fail from now on, until `end_errors`."""
        self._thread.call(self._inner.inject_error(device, *rules, **rule))

    def end_errors(self, device: str) -> None:
        """Give a device its disk back."""
        self._thread.call(self._inner.end_errors(device))

    def throttle(self, device: str, **limits: int) -> None:
        """Slow a disk down; without limits it is as fast as it was."""
        self._thread.call(self._inner.throttle(device, **limits))

    def nmi(self) -> None:
        """Send the guest a non-maskable interrupt."""
        self._thread.call(self._inner.nmi())

    def machine_check(
        self,
        cpu: int = 0,
        *,
        bank: int = 9,
        status: int = 0xBE00000000000134,
        mcg_status: int = 0x5,
        address: int = 0,
        misc: int = 0,
        broadcast: bool = False,
    ) -> None:
        """Tell the guest of an error of its hardware."""
        self._thread.call(
            self._inner.machine_check(
                cpu,
                bank=bank,
                status=status,
                mcg_status=mcg_status,
                address=address,
                misc=misc,
                broadcast=broadcast,
            )
        )

    def pcie_error(self, device: str, error: str) -> None:
        """Have a PCIe device report an error."""
        self._thread.call(self._inner.pcie_error(device, error))

    def gap(self, seconds: float) -> None:
        """Let the guest miss some time: stop, wait, cont."""
        self._thread.call(self._inner.gap(seconds))
