"""The plan, and the only place where a value is decided. Pure.

Profile, platform, capabilities and host facts go in; options, setup and expectations come out.

Precedence, weakest first: QEMU's default, the machine type, the platform, the profile, the
command line. Every value carries its origin and the way it will be read back.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.plan.make import make_plan, needed_features, needed_types
    from launcher.plan.model import (
        Descriptor,
        Helper,
        HostFacts,
        InheritedFd,
        Omission,
        Option,
        Origin,
        Plan,
        Setup,
        Value,
    )

__all__ = [
    "Descriptor",
    "Helper",
    "HostFacts",
    "InheritedFd",
    "Omission",
    "Option",
    "Origin",
    "Plan",
    "Setup",
    "Value",
    "make_plan",
    "needed_features",
    "needed_types",
]

#: Loaded on first use: who needs one noun of this room need not wait for all of it.
_HOMES = {
    "make": ("make_plan", "needed_features", "needed_types"),
    "model": (
        "Descriptor",
        "Helper",
        "HostFacts",
        "InheritedFd",
        "Omission",
        "Option",
        "Origin",
        "Plan",
        "Setup",
        "Value",
    ),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = __import__(f"{__name__}.{_HOME[name]}", fromlist=[name])
    found = globals()[name] = getattr(module, name)
    return found
