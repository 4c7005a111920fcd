"""Profiles: what the user wrote, as one typed and frozen value. Pure.

The fixed part of a profile is described in QAPI terms (`shape`); the options that QEMU defines
(objects, netdevs, devices, …) stay nodes here and are checked against the binary's own schema
when they are planned. All mistakes are reported at once, each with its file, line and column.
"""

from launcher.profiles.parse import parse_profile
from launcher.profiles.profile import Profile, Serial
from launcher.profiles.shape import PROFILE, SHAPE

__all__ = ["PROFILE", "SHAPE", "Profile", "Serial", "parse_profile"]
