"""A guest from this host to another or to this one, by what two agents tell each other.

    model.py        one migration as a journal has it; who says what to whom           pure
    post.py         messages to other agents, and waiting for theirs
    remote.py       the other host's end, as far as it is told of
    sides.py        this host's end, for the preflight
    tls.py          the stream's certificates
    source.py       the verbs `preflight` and `migrate`
    sending.py      one guest on its way from here: agree, carry, commit; or keep it
    settle.py       the end of a migration that was not seen: after a kill, a silence
    moves.py         an agent's part in all of it
    destination.py  taking guests: which are on their way, and what was decided
    arriving.py     one guest on its way here

Exactly one copy runs (docs/decisions/0019-migration-between-hosts.md). A destination lets its copy
run when it is told to commit, and for no other reason. A source that has told it so never lets its
own run again, unless the destination answers that its copy is dead and never ran.
"""
