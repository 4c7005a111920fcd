"""Who answers in the measurements of agents, each a process: `python responders.py KIND PORT …`.

wire     echoes over a plain socket: what the broker costs
library  echoes with the MQTT library that the agent uses
hosts    COUNT agents in one process, each with a journal of its own and no machine
"""

from __future__ import annotations

import asyncio
import os
import sys

from wire import Wire


def wire(port: int, topic: str) -> None:
    """Echo for ever."""
    connection = Wire(port, "echo-wire")
    connection.subscribe(topic)
    print("ready", flush=True)
    while True:
        _topic, payload, reply = connection.take_with_reply()
        connection.publish(reply.decode(), payload)


async def library(port: int, topic: str) -> None:
    """Echo for ever, as the agent would if it had nothing to do."""
    from launcher.bus.broker import Broker, acknowledge, make_client, property_of

    async with make_client(Broker(f"mqtt://127.0.0.1:{port}"), "echo-library", session=0) as client:
        await client.subscribe(topic, qos=1)
        print("ready", flush=True)
        async for message in client.messages:
            acknowledge(client, message)
            await client.publish(property_of(message, "ResponseTopic"), message.payload, qos=1)


async def hosts(port: int, folder: str, first: int, count: int) -> None:
    """Many agents: their own code, but for facts that are gathered once for all."""
    from launcher.agent.agent import Agent, Settings
    from launcher.bus.broker import Broker
    from launcher.host.facts import FORMAT, gather

    facts = {"format": FORMAT, **gather()}

    class Simulated(Agent):
        async def _gather_facts(self) -> None:
            self._telling.facts = facts
            self._telling.put_facts()

    broker = Broker(f"mqtt://127.0.0.1:{port}")
    agents = [
        Simulated(Settings(broker, f"host-{n}", os.path.join(folder, f"host-{n}")))
        for n in range(first, first + count)
    ]
    async with asyncio.TaskGroup() as group:
        for agent in agents:
            group.create_task(agent.run())
        while not all(agent.figures.connected for agent in agents):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        print("ready", flush=True)


def main() -> None:
    """By the first word."""
    kind, port, *rest = sys.argv[1:]
    if kind == "wire":
        wire(int(port), *rest)
    elif kind == "library":
        asyncio.run(library(int(port), *rest))
    else:
        asyncio.run(hosts(int(port), rest[0], int(rest[1]), int(rest[2])))


if __name__ == "__main__":
    main()
