"""QEMU's own types, and one engine that checks values of them. Pure.

A profile's fixed part is described in the same terms (`SchemaInfo` of QAPI's introspection, plus
maps keyed by id) as the options of the binary, so one small engine checks everything, reports all
mistakes with their positions, and can be written out as JSON Schema.
"""

from launcher.qapi.check import Checker, said, suggest
from launcher.qapi.schema import Schema
from launcher.qapi.text import (
    format_json,
    format_keyval,
    nearest,
    parse_boolean,
    parse_integer,
    parse_json,
    parse_size,
    snake,
)

__all__ = [
    "Checker",
    "Schema",
    "format_json",
    "format_keyval",
    "nearest",
    "parse_boolean",
    "parse_integer",
    "parse_json",
    "parse_size",
    "said",
    "snake",
    "suggest",
]
