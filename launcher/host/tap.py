"""What the kernel's tap devices can do, asked of the kernel in the way QEMU asks.

QEMU negotiates virtio-net's offloads with the tap it gets, silently: a machine made on one host
has features that another host's kernel lacks. The probes are those of QEMU's net/tap-linux.c
(tap_probe_has_ufo, tap_probe_has_uso, tap_probe_has_tunnel); numbers from linux/if_tun.h.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from launcher.host.child import in_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEVICE = "/dev/net/tun"

_TUNGETFEATURES = 0x800454CF
_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_FEATURES = {
    "tap": 0x0002,
    "napi": 0x0010,
    "multi-queue": 0x0100,
    "no-pi": 0x1000,
    "vnet-hdr": 0x4000,
}
_CSUM, _TSO4, _TSO6, _TSO_ECN, _UFO = 0x01, 0x02, 0x04, 0x08, 0x10
_USO4, _USO6, _TUNNEL, _TUNNEL_CSUM = 0x20, 0x40, 0x80, 0x100
#: Each with what the kernel wants beside it.
OFFLOADS = {
    "csum": _CSUM,
    "tso4": _CSUM | _TSO4,
    "tso6": _CSUM | _TSO6,
    "tso-ecn": _CSUM | _TSO4 | _TSO_ECN,
    "ufo": _CSUM | _UFO,
    "uso": _CSUM | _USO4 | _USO6,  # the kernel takes both or none
    "tunnel": _CSUM | _TSO4 | _TUNNEL,  # and this only beside another one
    "tunnel-csum": _CSUM | _TSO4 | _TUNNEL | _TUNNEL_CSUM,
}
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_IFREQ = "=16sH22x"


def tun_features() -> dict[str, bool]:
    """The flags of TUNGETFEATURES by QEMU-like names; needs no privilege but to open the device.

    Raises:
        OSError: /dev/net/tun is not there, or does not open.
    """
    fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        answer = bytearray(4)
        fcntl.ioctl(fd, _TUNGETFEATURES, answer)
    finally:
        os.close(fd)
    bits = struct.unpack("=I", answer)[0]
    return {name: bool(bits & flag) for name, flag in _FEATURES.items()}


def tap_offloads(timeout: float = 5.0) -> dict[str, bool]:
    """Which offloads a throw-away tap takes (TUNSETOFFLOAD).

    The tap is made by a child process in a new network namespace where it may make one, so that
    no service of this host sees it; else, with CAP_NET_ADMIN, in this one for a moment.

    Raises:
        OSError: no tap may be made here; nothing is known then.
    """
    import ctypes  # loaded before the fork: the child should only call it

    libc = ctypes.CDLL(None, use_errno=True)

    def unshare(flags: int) -> bool:
        return bool(libc.unshare(flags) == 0)

    def probe() -> dict[str, Any]:
        private = unshare(_CLONE_NEWNET) or unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
        try:
            return {"offloads": _ask_a_tap(), "private": private}
        except OSError as error:
            return {"errno": error.errno, "what": error.strerror}

    answer = in_child(probe, timeout)
    if "errno" in answer:
        raise OSError(answer["errno"], f"no tap can be made: {answer['what']}")
    offloads: dict[str, bool] = answer["offloads"]
    return offloads


def _ask_a_tap() -> dict[str, bool]:
    fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        flags = _FEATURES["tap"] | _FEATURES["no-pi"] | _FEATURES["vnet-hdr"]
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack(_IFREQ, b"", flags))
        return {name: _takes(fd, mask) for name, mask in OFFLOADS.items()}
    finally:
        os.close(fd)  # the tap goes with it


def _takes(fd: int, mask: int) -> bool:
    try:
        fcntl.ioctl(fd, _TUNSETOFFLOAD, mask)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    return True
