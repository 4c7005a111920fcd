"""What one pin becomes on one binary: a value to write, nothing with a reason, or an error."""

from __future__ import annotations

from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from launcher.platforms.resolve import Pin
    from launcher.platforms.versions import Version


@record
class Written:
    """Write `value`; `because` says why it is spelled unlike the pin, else empty."""

    value: str
    because: str = ""


@record
class Omitted:
    """Write nothing: the binary behaves so by itself, or the value cannot matter there."""

    reason: str


@record
class Impossible:
    """The binary cannot do what the platform asks: an error before launch."""

    reason: str


if TYPE_CHECKING:
    Spelling = Written | Omitted | Impossible


def spell(pin: Pin, version: Version, smp: int | None = None) -> Spelling:
    """`pin` for a QEMU of `version` with `smp` CPUs (None: a tool that has no machine)."""
    value = pin.value.replace("${smp}", str(smp or 1))
    if not pin.knows.contains(version):
        return _unknown(pin, value, version)
    for limit in pin.row.cannot:
        if limit.value in (pin.value, value) and limit.knows.contains(version):
            said = f"QEMU {version} cannot have {pin.property}={value}: {limit.because}"
            return Omitted(said) if limit.otherwise == "omit" else Impossible(said)
    for entry in pin.row.translate:
        if entry.value in (pin.value, value) and entry.knows.contains(version):
            return Written(entry.write.replace("${smp}", str(smp or 1)), entry.because)
    return Written(value)


def _unknown(pin: Pin, value: str, version: Version) -> Spelling:
    """A binary without the property: fine when it behaves as the value says."""
    said = f"QEMU {version} has no {pin.property} (known {pin.knows})"
    if pin.value == pin.oldest_was and pin.row.otherwise != "fail":
        return Omitted(f"{said} and behaves as {value!r}")
    if pin.row.otherwise == "omit":
        return Omitted(f"{said} and does without {value!r}")
    return Impossible(f"{said}; {asker(pin)} asks for {value!r}")


def asker(pin: Pin) -> str:
    """Who wants the value, for messages."""
    return "the lock" if pin.axis == "lock" else "the platform"


def applies(pin: Pin, properties: Mapping[str, str], netdev: str | None = None) -> bool:
    """Whether the conditions of `pin` hold for one object.

    Args:
        pin: the pin with its `when`.
        properties: what the profile gives that object, as QEMU's keyval text.
        netdev: for a device, the type of the backend that its `netdev` names.
    """
    for name, values in pin.row.when:
        given = netdev if pin.family == "device" and name == "netdev" else properties.get(name)
        if given not in values:
            return False
    return True
