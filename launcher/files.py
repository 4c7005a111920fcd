"""Reading what users wrote: strict YAML to nodes with line and column. Disk, read only.

Plain PyYAML turns `on` into True, `0x10` into 16 and `9.10` into 9.1, lets the last of two equal
keys win, and follows aliases without end: a 463-byte merge bomb hangs `yaml.safe_load` itself.
This reader takes the parser's *events* only. Scalars stay text, duplicate keys, custom tags and
merge keys are errors, and size, depth and node count are bounded before anything is built.
"""

from __future__ import annotations

import errno
import os
import stat

from launcher.errors import InputError, Place
from launcher.nodes import Mapping, Scalar, Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from launcher.nodes import Node

#: Bounds of one file: bytes, nesting, nodes after aliases are followed.
MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_NODES = 10_000

_READING = {
    errno.ENOENT: "there is no such file",
    errno.EACCES: "may not be read by this user",
    errno.ELOOP: "is a loop of symbolic links",
    errno.ENAMETOOLONG: "has a name that is too long",
    errno.ENOTDIR: "leads through something that is not a directory",
}


def read_text(path: str, *, limit: int = MAX_BYTES) -> str:
    """The UTF-8 text of a regular file of at most `limit` bytes.

    Raises:
        InputError: there is no such file, it is not a regular file (a FIFO would block for ever,
            `/dev/zero` would never end), it is too large, or it is not UTF-8.
    """
    place = Place(path)
    try:
        # O_NONBLOCK: opening a FIFO must not wait for its writer.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        # ValueError: a NUL in the name.
        unknown = getattr(error, "strerror", None) or "has a name that no file can have"
        what = _READING.get(getattr(error, "errno", None) or 0, unknown)
        raise InputError(what, place=place, hint=_nearby(path), code="file") from None
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            hint = "name a file in it"
            raise InputError("is a directory", place=place, hint=hint, code="file")
        if not stat.S_ISREG(mode):
            raise InputError("is not a regular file", place=place, code="file")
        data = b""
        while len(data) <= limit and (chunk := os.read(fd, limit + 1 - len(data))):
            data += chunk
    except OSError as error:
        raise InputError(f"could not be read: {error.strerror}", place=place) from None
    finally:
        os.close(fd)
    if len(data) > limit:
        raise InputError(f"is larger than {limit // 1024} KiB", place=place, code="limit")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        place = Place(path, line, column)
        hint = "save it as UTF-8"
        raise InputError("is not UTF-8 text", place=place, hint=hint, code="encoding") from None


def _nearby(path: str) -> str:
    """A hint naming the files beside `path` that look like it."""
    directory, name = os.path.split(path)
    try:
        names = sorted(set(os.listdir(directory or ".")) - {name})
    except (OSError, ValueError):
        return ""
    from difflib import get_close_matches

    near = get_close_matches(name, names, n=2)
    return f"did you mean {' or '.join(os.path.join(directory, n) for n in near)}?" if near else ""


def read_yaml(path: str, *, limit: int = MAX_BYTES, nodes: int = MAX_NODES) -> Mapping:
    """The mapping that the YAML file at `path` holds.

    Args:
        path: of the file.
        limit: so many bytes at most.
        nodes: so many values at most.

    Raises:
        InputError: the file cannot be read, is not YAML, or breaks one of the rules above.
    """
    return parse_yaml(read_text(path, limit=limit), path, nodes=nodes)


def parse_yaml(text: str, name: str, *, nodes: int = MAX_NODES) -> Mapping:
    """The mapping that `text` holds; `name` is what error messages call the file.

    Raises:
        InputError: as `read_yaml`.
    """
    import yaml

    # The C parser where PyYAML was built with it (8 to 16 times faster), else the pure one.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        root = _Builder(name, nodes).document(iter(yaml.parse(text, Loader=loader)))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        if "nesting depth" in (error.problem or "") and mark is not None and mark.index:
            # libyaml looks ahead, and newer ones stop at a depth of their own, far below ours:
            # what it had read until then is too deep for us, and we know the place.
            return parse_yaml(text[: mark.index - 1], name, nodes=nodes)
        raise _not_yaml(error, text, name) from None
    except yaml.YAMLError as error:
        raise InputError(_reader_words(error), place=_reader_place(error, text, name)) from None
    except RecursionError:
        raise InputError(f"is nested deeper than {MAX_DEPTH}", place=Place(name, 1, 1)) from None
    if not isinstance(root, Mapping):
        raise InputError(
            "must be a mapping of keys to values",
            place=root.place,
            hint="start with `name: …` and `platform: …`",
            code="yaml",
        )
    return root


def _not_yaml(error: Any, text: str, name: str) -> InputError:
    mark = error.problem_mark or error.context_mark
    words = error.problem or error.context
    # The parser counts from 0; what stands there says more than its words do.
    lines = text.splitlines()
    at = lines[mark.line][mark.column :] if mark.line < len(lines) else ""
    place = Place(name, mark.line + 1, mark.column + 1)
    hint = ""
    if "mapping values are not allowed" in words:
        hint = "quote the value: it holds a `: `"
    elif "cannot start any token" in words:
        meaning = f"quote it: {at[:1]!r} has a meaning in YAML"
        hint = "indent with spaces" if at[:1] == "\t" else meaning
    return InputError(f"is not YAML: {words}", place=place, hint=hint, code="yaml")


def _reader_words(error: Any) -> str:
    return f"is not YAML: {getattr(error, 'reason', None) or error}".splitlines()[0]


def _reader_place(error: Any, text: str, name: str) -> Place:
    """The position of a character that YAML forbids; PyYAML gives an offset only."""
    offset = getattr(error, "position", None)
    if not isinstance(offset, int):
        return Place(name)
    before = text[: min(offset, len(text))]
    return Place(name, before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)


class _Builder:
    """Events to nodes. One object per file: it counts nodes and remembers anchors."""

    def __init__(self, name: str, most: int) -> None:
        self.name = name
        self.most = most
        self.nodes = 0
        self.anchors: dict[str, tuple[Node, int]] = {}

    def place(self, event: Any) -> Place:
        mark = event.start_mark
        return Place(self.name, mark.line + 1, mark.column + 1)

    def fail(self, event: Any, message: str, hint: str = "") -> InputError:
        return InputError(message, place=self.place(event), hint=hint, code="yaml")

    def count(self, event: Any, more: int = 1) -> None:
        self.nodes += more
        if self.nodes > self.most:
            raise self.fail(event, f"holds more than {self.most} values")

    def document(self, events: Iterator[Any]) -> Node:
        root: Node | None = None
        for event in events:
            kind = type(event).__name__
            if kind == "DocumentStartEvent":
                if root is not None:
                    raise self.fail(event, "holds a second YAML document", "keep one per file")
            elif kind not in ("StreamStartEvent", "StreamEndEvent", "DocumentEndEvent"):
                root = self.node(event, events, 1)
        return root if root is not None else Mapping({}, Place(self.name, 1, 1), {})

    def node(self, event: Any, events: Iterator[Any], depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise self.fail(event, f"is nested deeper than {MAX_DEPTH}")
        kind = type(event).__name__
        if kind == "AliasEvent":
            return self.alias(event)
        self.count(event)
        before = self.nodes
        if event.tag is not None and event.tag not in ("!", "tag:yaml.org,2002:str"):
            raise self.fail(event, f"has the tag {event.tag}", "tags are not used in profiles")
        built: Node
        if kind == "ScalarEvent":
            built = self.scalar(event)
        elif kind == "SequenceStartEvent":
            built = self.sequence(event, events, depth)
        else:
            built = self.mapping(event, events, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = (built, self.nodes - before + 1)
        return built

    def alias(self, event: Any) -> Node:
        known = self.anchors.get(event.anchor)
        if known is None:
            raise self.fail(event, f"*{event.anchor} stands inside or before its own anchor")
        # Counting what an alias stands for is what makes an alias bomb end early.
        self.count(event, known[1])
        return known[0]

    def scalar(self, event: Any) -> Scalar:
        plain = not event.style and event.tag is None
        for position, char in enumerate(event.value):
            if char < " " and char not in "\n\t":
                raise self.fail(event, f"holds a control character (U+{ord(char):04X})")
            if char == "\x7f" or "\ud800" <= char <= "\udfff":
                raise self.fail(event, f"holds U+{ord(char):04X} at character {position + 1}")
        return Scalar(event.value, self.place(event), plain)

    def sequence(self, start: Any, events: Iterator[Any], depth: int) -> Sequence:
        items = []
        for event in events:
            if type(event).__name__ == "SequenceEndEvent":
                break
            items.append(self.node(event, events, depth + 1))
        return Sequence(tuple(items), self.place(start))

    def mapping(self, start: Any, events: Iterator[Any], depth: int) -> Mapping:
        items: dict[str, Node] = {}
        keys: dict[str, Place] = {}
        for event in events:
            if type(event).__name__ == "MappingEndEvent":
                break
            key = self.node(event, events, depth + 1)
            if not isinstance(key, Scalar):
                raise self.fail(event, "has a key that is not plain text")
            if key.plain and key.text == "<<":
                raise self.fail(event, "has a merge key", "use `extends:` instead of `<<`")
            if key.text in items:
                first = keys[key.text].line
                raise self.fail(event, f"has the key {key.text!r} twice", f"first on line {first}")
            keys[key.text] = key.place
            items[key.text] = self.node(next(events), events, depth + 1)
        return Mapping(items, self.place(start), keys)
