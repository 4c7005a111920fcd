"""The plan, and the only place where a value is decided. Pure.

Profile, platform, capabilities and host facts go in; options, setup and expectations come out.

Precedence, weakest first: QEMU's default, the machine type, the platform, the profile, the
command line. Every value carries its origin and the way it will be read back.
"""

from launcher.plan.make import make_plan, needed_features, needed_types
from launcher.plan.model import (
    Descriptor,
    HostFacts,
    Omission,
    Option,
    Origin,
    Plan,
    Setup,
    Value,
    Want,
)

__all__ = [
    "Descriptor",
    "HostFacts",
    "Omission",
    "Option",
    "Origin",
    "Plan",
    "Setup",
    "Value",
    "Want",
    "make_plan",
    "needed_features",
    "needed_types",
]
