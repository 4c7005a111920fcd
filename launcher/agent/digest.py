"""What a machine is made of, in a word."""

from __future__ import annotations

import hashlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.plan import Plan


def digest_of(plan: Plan) -> str:
    """What a machine is made of, in a word: equal for two starts of the same.

    The UUID that each start makes up is left out. Of secrets the hash goes in, and no way back.
    """
    options = [[o.name, o.form, o.head, o.members] for o in plan.options if o.name != "-uuid"]
    secrets = [[want.name, want.content] for want in plan.wants]
    whole = [plan.binary, plan.platform, plan.tool, options, plan.setup, plan.unplanned, secrets]
    return hashlib.sha256(repr(whole).encode("utf-8", "backslashreplace")).hexdigest()
