"""The short forms, `memory`, `disk`, `net` and so on, each with a visible expansion.

Nothing else is invented: what a short form becomes is what a QEMU user would have written.
"""

from __future__ import annotations

from launcher.errors import InputError
from launcher.nodes import Mapping, Scalar, Sequence
from launcher.profiles.shape import ID, ID_RULE
from launcher.qapi import parse_boolean, parse_size, said
from launcher.qapi.check import size_hint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from launcher.errors import Place
    from launcher.nodes import Node

#: How virtio devices are attached, by the start of the machine type's name.
_TRANSPORTS = (("microvm", "device"), ("s390-ccw", "ccw"))

#: Image formats that a file's own name tells; anything else must be said (never probed: a raw
#: disk whose guest writes a qcow2 header into it would open any host file).
_FORMATS = {".qcow2": "qcow2", ".raw": "raw", ".img": "raw", ".iso": "raw"}

_SECTIONS = ("objects", "netdevs", "chardevs", "blockdevs", "devices", "tpmdevs")

#: Versions of a TPM, and the device that shows one: the CRB interface is of TPM 2.0.
_TPMS = {"2.0": "tpm-crb", "1.2": "tpm-tis"}

#: Short forms that make one thing of a name that is given.
_WITHOUT_ID = ("memory", "guest-agent")

#: Keys of `net` that belong to the device, not to its backend.
_NIC_KEYS = ("mac", "model")


class Expander:
    """Collects what the short forms of one profile become.

    `sections` holds the new entries by section; `serials` the chardev ids of serial ports, and
    `agent` that of the guest agent's.

    Args:
        root: the profile's tree.
        mistakes: grows.
        first: with which number those without an id begin, by short form.
    """

    def __init__(
        self, root: Mapping, mistakes: list[InputError], first: dict[str, int] | None = None
    ) -> None:
        self.root = root
        self.mistakes = mistakes
        self.first = first or {}
        self.sections: dict[str, dict[str, Mapping]] = {name: {} for name in _SECTIONS}
        self.serials: list[tuple[str, Place, bool]] = []
        self.agent = ""
        self.notes: list[tuple[str, Place, str]] = []
        self.memory: Mapping | None = None
        self.tpm: tuple[str, Scalar, str] | None = None
        machine = root.get("machine")
        kind = machine.get("type") if isinstance(machine, Mapping) else machine
        self.machine = kind.text if isinstance(kind, Scalar) else ""

    def expand(self) -> None:
        """Expand every short form that the profile has."""
        for key, one in (
            ("memory", self._memory),
            ("disk", self._disk),
            ("cdrom", self._cdrom),
            ("net", self._net),
            ("serial", self._serial),
            ("tpm", self._tpm),
            ("guest-agent", self._agent),
        ):
            node = self.root.get(key)
            if node is None:
                continue
            for number, item in enumerate(_as_list(node), self.first.get(key, 0)):
                one(item, number)

    def _add(self, short: str, section: str, key: str, node: Mapping) -> bool:
        """Add one entry; False after noting that its id is taken."""
        if not ID.match(key):
            self._fail(node.place, f"{key!r} cannot be an id in {section}", ID_RULE)
            return False
        written = self.root.get(section)
        taken = isinstance(written, Mapping) and key in written.items
        if taken or key in self.sections[section]:
            self._fail(
                node.place,
                f"{short} makes {section}.{key}, which exists already",
                f"rename {section}.{key}" if short in _WITHOUT_ID else "give it another `id`",
            )
            return False
        self.sections[section][key] = node
        self.notes.append((short, node.place, f"{section}.{key}"))
        return True

    def _fail(self, place: Place, message: str, hint: str = "") -> None:
        self.mistakes.append(InputError(message, place=place, hint=hint, code="short-form"))

    def _virtio(self, kind: str) -> str:
        for start, suffix in _TRANSPORTS:
            if self.machine.startswith(start):
                return f"virtio-{kind}-{suffix}"
        return f"virtio-{kind}-pci"

    # -- one function per short form ---------------------------------------------------------

    def _memory(self, node: Node, number: int) -> None:
        if number:
            return  # a list, which the check of the profile's shape refuses
        given = node if isinstance(node, Mapping) else _map(node.place, size=node)
        size = given.get("size")
        if size is None:
            self._fail(node.place, "memory needs 'size'", "write `memory: 1GiB`")
            return
        count = parse_size(size.text) if isinstance(size, Scalar) else None
        if count is None or count <= 0:
            hint = (isinstance(size, Scalar) and size_hint(size.text)) or "write it as 512M or 1GiB"
            self._fail(size.place, f"memory.size must be a size above zero, not {said(size)}", hint)
            return
        self.memory = given
        machine = self.root.get("machine")
        own = isinstance(machine, Mapping) and "memory-backend" in machine.items
        backend = {k: i for k, i in given.items.items() if k not in _SIZES}
        if own or self._numa_memory():
            # The user's own objects; `memory` says their size to the machine only.
            for name in backend:
                words = f"memory.{name} has no effect: the profile names its own memory backends"
                self._fail(given.key_place(name), words, "write it into the backend's object")
            return
        backend.pop("type", None)
        kind = given.get("type") or Scalar("memory-backend-memfd", node.place)
        self._add(
            "memory",
            "objects",
            "ram",
            Mapping(
                {"qom-type": kind, "size": Scalar(str(count), size.place), **backend},
                node.place,
                dict(given.keys),
            ),
        )

    def _numa_memory(self) -> bool:
        """Whether the RAM comes from the memory backends of NUMA nodes."""
        nodes = self.root.get("numa")
        return isinstance(nodes, Sequence) and any(
            isinstance(node, Mapping) and "memdev" in node.items for node in nodes.items
        )

    def _disk(self, node: Node, number: int) -> None:
        given = _map(node.place, file=node) if isinstance(node, Scalar) else node
        if not isinstance(given, Mapping):
            return  # the shape's mistake is noted already
        source = self._need_file(given, "disk")
        if source is None:
            return
        kind = self._format(given, source)
        if kind is None:
            return
        key = _text(given.get("id")) or f"disk{number}"
        self._drive("disk", given, key, _image(given, kind, source), self._virtio("blk"))

    def _cdrom(self, node: Node, number: int) -> None:
        given = _map(node.place, file=node) if isinstance(node, Scalar) else node
        if not isinstance(given, Mapping):
            return  # the shape's mistake is noted already
        source = self._need_file(given, "cdrom")
        if source is None:
            return
        if not self.machine.startswith(("q35", "pc")):
            hint = "attach it as a `disk` with read-only: true"
            self._fail(node.place, f"machine {self.machine} has no CD drive", hint)
            return
        key = _text(given.get("id")) or f"cd{number}"
        read_only = Scalar("true", given.place)
        image = _image(given, given.get("format") or Scalar("raw", given.place), source)
        image = Mapping({**image.items, "read-only": read_only}, image.place, image.keys)
        if "q35" in self.machine and "bus" not in given.items:
            # QEMU looks for a free bus and takes AHCI's first one though it holds one drive only.
            items = {**given.items, "bus": _at(given, f"ide.{number}")}
            given = Mapping(items, given.place, given.keys)
        self._drive("cdrom", given, key, image, "ide-cd")

    def _drive(self, short: str, given: Mapping, key: str, image: Mapping, driver: str) -> None:
        """A block node and the device that shows it; what is not the node's is the device's."""
        extra = {k: n for k, n in given.items.items() if k not in _IMAGE_KEYS}
        members = {"driver": _at(given, driver), "drive": _at(given, key), **extra}
        if self._add(short, "blockdevs", key, image):
            device = Mapping(members, given.place, given.keys)
            self._add(short, "devices", f"{key}-dev", device)

    def _net(self, node: Node, number: int) -> None:
        if isinstance(node, Scalar):
            if node.text == "none":
                return
            given = _map(node.place, type=node)
        elif isinstance(node, Mapping):
            given = node
        else:
            return
        key = _text(given.get("id")) or f"net{number}"
        backend = {k: n for k, n in given.items.items() if k not in (*_NIC_KEYS, "id")}
        if not self._add("net", "netdevs", key, Mapping(backend, given.place, given.keys)):
            return
        driver = given.get("model") or _at(given, self._virtio("net"))
        device = {"driver": driver, "netdev": _at(given, key)}
        mac = given.get("mac")
        if mac is not None:
            device["mac"] = mac
        self._add("net", "devices", f"{key}-dev", Mapping(device, given.place, given.keys))

    def _serial(self, node: Node, number: int) -> None:
        if isinstance(node, Scalar):
            if node.text == "none":
                return
            if node.text != "console":
                hint = "write `serial: console`, or a chardev: `serial: {backend: file, path: …}`"
                self._fail(node.place, f"serial does not know {node.text!r}", hint)
                return
            chardev = _map(node.place, backend=Scalar("socket", node.place))
            key = "console" if number == 0 else f"console{number}"
            self._add("serial", "chardevs", key, chardev)
            self.serials.append((key, node.place, True))
            return
        if not isinstance(node, Mapping):
            return
        key = _text(node.get("id")) or f"serial{number}"
        backend = {k: n for k, n in node.items.items() if k != "id"}
        self._add("serial", "chardevs", key, Mapping(backend, node.place, node.keys))
        self.serials.append((key, node.place, False))

    def _agent(self, node: Node, number: int) -> None:
        """The port on which qemu-guest-agent listens; its name is the agent's own default."""
        if not isinstance(node, Scalar) or parse_boolean(node.text) is not True:
            return  # no agent, or the shape's mistake
        port = {
            "driver": Scalar("virtserialport", node.place),
            "bus": Scalar(f"{_AGENT}-bus.0", node.place),
            "chardev": Scalar(_AGENT, node.place),
            "name": Scalar("org.qemu.guest_agent.0", node.place),
        }
        bus = _map(node.place, driver=Scalar(self._virtio("serial"), node.place))
        chardev = _map(node.place, backend=Scalar("socket", node.place))
        if self._add("guest-agent", "chardevs", _AGENT, chardev):
            self._add("guest-agent", "devices", f"{_AGENT}-bus", bus)
            self._add("guest-agent", "devices", f"{_AGENT}-port", _map(node.place, **port))
            self.agent = _AGENT

    def _tpm(self, node: Node, number: int) -> None:
        given = _map(node.place, state=node) if isinstance(node, Scalar) else node
        if number or not isinstance(given, Mapping):
            return  # the shape's mistake is noted already
        state = given.get("state")
        if not isinstance(state, Scalar) or state.is_null or not state.text:
            hint = "write `tpm: FOLDER`; it is made when it does not exist"
            self._fail(given.place, "tpm needs a folder for its state", hint)
            return
        version = given.get("version") or _at(given, "2.0")
        if not isinstance(version, Scalar) or version.text not in _TPMS:
            words = f"tpm.version must be {' or '.join(_TPMS)}, not {said(version)}"
            self._fail(version.place, words, 'write it as text: `version: "2.0"`')
            return
        for name in given.items.keys() - {"state", "version", "model", "id"}:
            hint = "it has state, version, model and id"
            self._fail(given.key_place(name), f"tpm has no {name!r}", hint)
        key = _text(given.get("id")) or "tpm0"
        chardev = Mapping({"backend": _at(given, "socket")}, given.place, given.keys)
        backend: dict[str, Node] = {"type": _at(given, "emulator"), "chardev": _at(given, key)}
        device: dict[str, Node] = {
            "driver": given.get("model") or _at(given, _TPMS[version.text]),
            "tpmdev": _at(given, key),
        }
        if self._add("tpm", "chardevs", key, chardev):
            self._add("tpm", "tpmdevs", key, Mapping(backend, given.place, given.keys))
            self._add("tpm", "devices", f"{key}-dev", Mapping(device, given.place, given.keys))
            self.tpm = (key, state, version.text)

    # -- images ------------------------------------------------------------------------------

    def _need_file(self, given: Mapping, short: str) -> Scalar | None:
        source = given.get("file")
        if isinstance(source, Scalar) and not source.is_null and source.text:
            return source
        self._fail(given.place, f"{short} needs 'file'", f"write `{short}: {{file: …}}`")
        return None

    def _format(self, given: Mapping, source: Scalar) -> Node | None:
        kind = given.get("format")
        if kind is not None:
            return kind
        for ending, name in _FORMATS.items():
            if source.text.endswith(ending):
                return Scalar(name, source.place)
        self._fail(
            source.place,
            f"the format of {source.text!r} is not clear from its name",
            "say it: `format: qcow2` or `format: raw`; it is never guessed from the content",
        )
        return None


#: The chardev of the guest agent, and how the ids of its devices begin.
_AGENT = "guest-agent"

#: What `memory` says to the machine; the rest is the backend's.
_SIZES = ("size", "slots", "maxmem")

#: What of a short disk is its block node's; the rest is its device's.
_IMAGE_KEYS = (
    *("file", "format", "id", "backing", "read-only", "discard", "detect-zeroes", "cache"),
)


def _image(given: Mapping, kind: Node, source: Scalar) -> Mapping:
    """A block node: the format layer over the file, with the common options of the format."""
    file = _map(source.place, driver=Scalar("file", source.place), filename=source)
    options = {
        k: n
        for k, n in given.items.items()
        if k in _IMAGE_KEYS and k not in ("file", "format", "id")
    }
    return Mapping({"driver": kind, "file": file, **options}, given.place, given.keys)


def _map(place: Place, **items: Node) -> Mapping:
    return Mapping(dict(items), place, dict.fromkeys(items, place))


def _at(given: Mapping, text: str) -> Scalar:
    return Scalar(text, given.place)


def _text(node: Node | None) -> str:
    return node.text if isinstance(node, Scalar) else ""


def _as_list(node: Node) -> Iterable[Node]:
    return node.items if isinstance(node, Sequence) else (node,)
