"""vhost in the kernel: its devices, asked for the virtio features that they would run."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_VHOST_GET_FEATURES = 0x8008AF00  # linux/vhost.h: _IOR(VHOST_VIRTIO, 0x00, __u64)


def device(path: str) -> dict[str, Any]:
    """Whether a vhost device opens and answers VHOST_GET_FEATURES, which needs no owner.

    `features` are the bits that QEMU would offer the guest at most, in hexadecimal: they differ
    between kernels, and QEMU masks a device's own by them.
    """
    import fcntl
    import struct

    answer = bytearray(8)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        present = os.path.exists(path)
        why = f"{path} does not open: {error.strerror}" if present else f"{path} is not there"
        return {"present": present, "works": False, "reason": why}
    try:
        fcntl.ioctl(fd, _VHOST_GET_FEATURES, answer)
    except OSError as error:
        why = f"{path} opens and is no vhost device: {error.strerror}"
        return {"present": True, "works": False, "reason": why}
    finally:
        os.close(fd)
    bits = struct.unpack("=Q", answer)[0]
    return {"present": True, "works": True, "reason": f"{path} answers", "features": f"{bits:#x}"}


def vdpa(folder: str = "/dev") -> dict[str, Any]:
    """The vhost-vdpa devices, and whether this user may open them.

    None is opened: opening one resets the network card behind it (vhost_vdpa_open), and only one
    process may have it.
    """
    nodes = [os.path.join(folder, n) for n in os.listdir(folder) if n.startswith("vhost-vdpa-")]
    usable = [node for node in sorted(nodes) if os.access(node, os.R_OK | os.W_OK)]
    if usable:
        reason = f"{len(usable)} of {len(nodes)} devices may be opened (none was)"
    else:
        reason = "no device may be opened by this user" if nodes else "there is no device"
    return {"devices": sorted(nodes), "works": bool(usable), "reason": reason}
