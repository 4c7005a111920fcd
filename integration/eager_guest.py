"""A guest that takes every feature of its first PCI network device, played over qtest.

What a Linux guest takes depends on its own release; what breaks a migration is what some guest may
have taken. No guest code runs: the registers are written as a driver would (virtio 1.2, 4.1).
"""

from __future__ import annotations

import socket

_ADDRESS, _DATA = 0xCF8, 0xCFC
_BAR = 0xC0000000
_DEVICE = 1 << 11  # 00:01.0
_SELECT_DEVICE, _DEVICE_FEATURES, _SELECT_DRIVER, _DRIVER_FEATURES = 0x00, 0x04, 0x08, 0x0C
_STATUS = 0x14


class EagerGuest:
    """A listening socket for `-qtest unix:PATH`, and the driver behind it."""

    def __init__(self, path: str) -> None:
        self.argv = ["-qtest", f"unix:{path}", "-qtest-log", "none"]
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(1)
        self._listener.settimeout(30)

    def meet(self) -> None:
        """Wait for QEMU."""
        self._socket, _ = self._listener.accept()
        self._socket.settimeout(30)
        self._file = self._socket.makefile("rw")

    def fill(self, address: int, size: int, byte: int) -> None:
        """Write to the guest's memory, as its own CPU would: migration sees it."""
        self._ask(f"memset {address:#x} {size:#x} {byte:#x}")

    def drive(self) -> list[int]:
        """Take everything; the features as words of 32 bits."""
        self.meet()
        # BAR 4 holds the common configuration; then decode memory, master the bus.
        for register, value in ((0x20, _BAR), (0x24, 0), (0x04, 6)):
            self._ask(f"outl {_ADDRESS} {0x80000000 | _DEVICE | register}")
            self._ask(f"outl {_DATA} {value}")
        self._write("b", _STATUS, 3)
        taken = []
        for select in range(4):
            self._write("l", _SELECT_DEVICE, select)
            taken.append(int(self._ask(f"readl {_BAR + _DEVICE_FEATURES}").split()[1], 16))
            self._write("l", _SELECT_DRIVER, select)
            self._write("l", _DRIVER_FEATURES, taken[-1])
        self._write("b", _STATUS, 3 | 8 | 4)
        return taken

    def _write(self, width: str, register: int, value: int) -> None:
        self._ask(f"write{width} {_BAR + register} {value}")

    def _ask(self, line: str) -> str:
        self._file.write(f"{line}\n")
        self._file.flush()
        while True:
            answer = self._file.readline()
            assert answer, "QEMU went away"
            if answer.startswith("OK"):
                return answer

    def close(self) -> None:
        self._listener.close()
        if hasattr(self, "_socket"):
            self._file.close()
            self._socket.close()
