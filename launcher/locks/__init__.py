"""Lock files: what a machine was started with, kept, compared and replayed. Pure.

emit.py      values as YAML
shape.py     the form of a lock file, and its JSON Schema
given.py     what a profile resolves to
model.py     a lock file as a value, written and read
compare.py   what moved since, and what differs between two
replay.py    whether a plan and a report keep a lock
"""
