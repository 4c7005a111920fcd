"""What a broker really lets an agent do, proved by messages that come back or do not.

A broker may grant a subscription that its own rules forbid and then deliver nothing, or deliver
what nobody meant it to: only a message that arrives is proof. What this host may write and not
read cannot come back; there the broker's own answer to it counts (MQTT 5, PUBACK).
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time

from launcher.bus import topics
from launcher.bus.broker import (
    NO_SHARED_SUBSCRIPTIONS,
    MqttError,
    PublishError,
    SubscribeError,
    make_client,
    publish,
    share_pool,
    subscribe,
)
from launcher.bus.link import connected
from launcher.bus.refusal import refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.agent.agent import Settings
    from launcher.bus.broker import Client

#: Seconds for a message that is to come, and for one that is not.
_COMES, _STAYS = 5.0, 1.0
_ROUNDS = 20
_ACL = ": write an ACL (packaging/agent/acl.conf)"


async def check_broker(settings: Settings) -> list[dict[str, Any]]:
    """Each thing that was tried: `what`, `good`, and what was `found`.

    Raises:
        BrokerError: the broker cannot be reached, or one of the two refuses the other.
    """
    own, other = settings.host, f"check-{os.urandom(8).hex()}"
    name = f"qemu-launcher-check-{own}"
    client = make_client(settings.broker, name, session=0, by_hand=False, seconds=_COMES)
    try:
        async with connected(client):
            return [
                await _round_trip(client, topics.host_topic(own, "events")),
                await _hears(client, own),
                await _comes(client, topics.command_topic(own, "check"), "this host's commands"),
                await _stays(client, topics.command_topic(other, "query"), "another's commands"),
                await _stays(client, topics.host_topic(other, "status"), "another host's status"),
                await _refused(client, topics.command_topic(other, "query"), "command another"),
                await _refused(
                    client, topics.host_topic(other, "status"), "speak as another to all"
                ),
                await _refused(
                    client,
                    topics.host_topic(own, "peer", own, "check"),
                    "speak to other hosts",
                    True,
                ),
                await _refused(
                    client,
                    topics.host_topic(other, "peer", f"{other}-2", "check"),
                    "speak as another to a third",
                ),
                *[await _shares(client, pool, other) for pool in settings.pools],
            ]
    except MqttError as error:
        raise refusal(settings.broker, error, name) from None


async def _shares(client: Client, pool: str, other: str) -> dict[str, Any]:
    """Whether the broker lets us take part in a pool; asked as a pool of our own.

    What is sent meanwhile comes to us too, and to one of the hosts all the same.
    """
    what = f"starts of the pool {pool}"
    try:
        await share_pool(client, other, topics.pool_topic(pool))
    except SubscribeError as error:
        hint = "" if error.code.value == NO_SHARED_SUBSCRIPTIONS else _ACL
        return _row(what, False, f"the broker refuses it: {error.code}{hint}")
    return _row(what, True, "the broker grants it")


async def _refused(client: Client, topic: str, what: str, wanted: bool = False) -> dict[str, Any]:
    """Whether a broker takes what this host must, or must not, write."""
    try:
        async with asyncio.timeout(_COMES):
            await publish(client, topic, os.urandom(16))
    except TimeoutError:
        return _row(what, False, "the broker did not answer")
    except PublishError as error:
        return _row(what, not wanted, f"the broker refuses it: {error.code}{_ACL * wanted}")
    return _row(what, wanted, f"the broker takes it{'' if wanted else _ACL}")


def _row(what: str, good: bool, found: str) -> dict[str, Any]:
    return {"what": what, "good": good, "found": found}


async def _echo(client: Client, topic: str, seconds: float) -> bool:
    """Whether what is published on a topic comes back to who subscribes to it."""
    word = os.urandom(16)
    try:
        await subscribe(client, topic)
        await client.publish(topic, word, qos=1)
        async with asyncio.timeout(seconds):
            async for message in client.messages:
                if message.payload == word:
                    return True
    except TimeoutError:
        pass
    return False


async def _round_trip(client: Client, topic: str) -> dict[str, Any]:
    try:
        comes = await _echo(client, topic, _COMES)
    except SubscribeError as error:
        return _row("publish for this host", False, f"{topic} may not be read: {error.code}{_ACL}")
    if not comes:
        return _row("publish for this host", False, f"{topic} does not come back")
    took = []
    for _ in range(_ROUNDS):
        before = time.monotonic()
        await _echo_once(client, topic)
        took.append((time.monotonic() - before) * 1000)
    median = statistics.median(took)
    hint = "; set_tcp_nodelay true in the broker's file makes it faster" if median > 20 else ""
    return _row("publish for this host", True, f"comes back after {median:.2f} ms{hint}")


async def _echo_once(client: Client, topic: str) -> None:
    word = os.urandom(16)
    await client.publish(topic, word, qos=1)
    async for message in client.messages:
        if message.payload == word:
            return


async def _hears(client: Client, host: str) -> dict[str, Any]:
    """Whether the broker grants what an agent subscribes to."""
    what = "hear what is for this host"
    try:
        await subscribe(client, *topics.heard(host), topics.command_topic(host, "+"))
    except SubscribeError as error:
        return _row(what, False, f"the broker refuses {error.topic}: {error.code}{_ACL}")
    return _row(what, True, "the broker grants it")


async def _comes(client: Client, topic: str, what: str) -> dict[str, Any]:
    """An agent need not be able to write its own commands; being able to is told, not wrong."""
    try:
        reached = await _echo(client, topic, _STAYS)
    except SubscribeError as error:
        return _row(what, False, f"the broker refuses {error.topic}: {error.code}{_ACL}")
    return _row(what, True, "can be written by this host too" if reached else "cannot be written")


async def _stays(client: Client, topic: str, what: str) -> dict[str, Any]:
    try:
        reached = await _echo(client, topic, _STAYS)
    except SubscribeError:
        reached = False
    if reached:
        return _row(what, False, "this host may read and write them: write an ACL (docs/agent.md)")
    return _row(what, True, "out of reach")
