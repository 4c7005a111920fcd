"""The agent: the launcher behind an MQTT 5 broker, one for each host.

    messages.py   a payload to a command, answers to payloads                pure
    policy.py     what a host lets others start                              pure
    journal.py    ids, outcomes and machines, on disk before they are acted on
    machines.py   the machines that are the agent's: start, find again, see them end
    verbs.py      a command to its effect
    outbox.py     what is yet to be told to the broker
    agent.py      the order of all that: take, journal, acknowledge, do, answer

It decides nothing about machines that the command line does not: the verbs call the same functions.
The session with the broker is in `launcher.bus`.
"""
