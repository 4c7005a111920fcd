"""Many hosts from one desk: what their agents publish, and commands to them.

    async with launcher.fleet.connect("mqtts://broker.example", client="desk") as fleet:
        fleet.hosts                     # name → Host: online, offline or lost
        fleet.machines                  # (host, name) → state
        await fleet.command("h1", "start", profile="web")

    picture.py    what was published, host by host             pure
    faults.py     an agent's error as one of ours              pure
    asking.py     a command that waits for its final answer
    looking.py    subscriptions: all that is retained, in portions that no broker drops
    session.py    the connection, and the next one
    client.py     `Fleet`: what is known, and commands
    chores.py     what takes many commands: verify all machines, empty a host
    floor.py      facts of many hosts → the platform that they share

It decides nothing: what runs where is the caller's word, and whether it may is the agent's.
"""

from __future__ import annotations

from launcher.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from launcher.fleet.client import Fleet

__all__ = ["connect"]


def connect(
    broker: str,
    *,
    client: str = "",
    username: str = "",
    password_file: str = "",
    ca_file: str = "",
    cert_file: str = "",
    key_file: str = "",
    hosts: Sequence[str] = (),
    facts: bool = True,
    machines: bool = True,
    events: bool = False,
    timeout: float = 10.0,
) -> Fleet:
    """The hosts behind a broker, to be entered with `async with`.

    Args:
        broker: `mqtt://HOST[:PORT]`, `mqtts://HOST[:PORT]` or `unix:///PATH`.
        client: our name in the topic of answers, which the broker's rules may bind us to; by
            default the user's name.
        username: who we are to the broker.
        password_file: a file that holds the password.
        ca_file: certificates that sign the broker's.
        cert_file: our own certificate.
        key_file: its key, where it is not in the same file.
        hosts: look at these only; by default at all.
        facts: whether to look at the hosts' facts.
        machines: whether to look at the machines' states.
        events: whether to take events, for `Fleet.events`.
        timeout: seconds to connect and to see all that is retained.

    Raises:
        InputError: no broker's address, no id.
        HostError: aiomqtt is not installed. Entering it raises it when the broker is not there.
    """
    try:
        from launcher.bus.broker import Broker
    except ImportError as error:
        raise HostError(
            f"{error.name} is not installed, and speaks to the broker",
            hint="pip install 'qemu-launcher[agent]'",
            code="missing",
        ) from None
    from launcher.fleet.client import Fleet
    from launcher.fleet.looking import View

    where = Broker(broker, username, password_file, ca_file, cert_file, key_file)
    view = View(tuple(hosts), facts=facts, machines=machines, events=events)
    return Fleet(where, client, view, timeout)
