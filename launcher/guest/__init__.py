"""Commands and files in the guest: over qemu-guest-agent, or over a shell at the serial console.

    guest.py     `Guest`: what a user has, whichever of the two it goes over
    ran.py       what a command gave
    wire.py      the agent's protocol, bytes in and messages out; bounded, believes nothing
    port.py      the agent's port: one question at a time, each with a deadline
    agent.py     commands and files over the agent
    terminal.py  a line typed at a shell, and what it wrote; survives echo, escapes, other output
    shell.py     commands and files over that

The guest is nobody to trust: an agent may answer anything, for ever, or not at all.
"""

from launcher.guest.guest import Guest, reach
from launcher.guest.ran import GuestError, Ran

__all__ = ["Guest", "GuestError", "Ran", "reach"]
