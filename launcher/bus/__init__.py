"""The bus between agents and those who drive them: MQTT 5.

    topics.py    the grammar of topics and ids                 pure
    broker.py    where the broker is, and a session with it; the one importer of aiomqtt

What `launcher.agent` and `launcher.fleet` share; each decides for itself what it says there.
"""
