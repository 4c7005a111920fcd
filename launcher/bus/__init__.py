"""The bus between agents and those who drive them: MQTT 5.

    topics.py    the grammar of topics and ids                 pure
    broker.py    where the broker is, and a session with it
    link.py      one connection, and what becomes of its socket
    refusal.py   why there is none, in words

What `launcher.agent` and `launcher.fleet` share; each decides for itself what it says there.
"""
