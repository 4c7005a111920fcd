"""The readers: for each way of reading back, what to ask and where the values are in the answer.

Pure, but for the one that looks at the host's own truth in /sys.

Round 0 asks in bulk; round 1 asks singly for what a bulk answer did not hold.
"""

from __future__ import annotations

from launcher.report import Observation
from launcher.verify.hmp import parse_migrate, parse_network, parse_qtree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from launcher.capabilities import Capabilities
    from launcher.plan import Plan, Value
    from launcher.report.model import Key

    Observations = dict[Key, Observation]
    Answers = list[tuple["Question", Any]]

_CONTAINERS = {
    "object": "/objects/",
    "chardev": "/chardevs/",
    "device": "/machine/peripheral/",
    "audiodev": "/audiodevs/",
}

#: Where a machine keeps the devices that nobody named, its CPUs among them.
_UNATTACHED = "/machine/unattached"
#: What ends a CPU model's type where the rest of it is the model's name (target/i386/cpu.c). Other
#: targets have aliases, and CPUs that stand elsewhere.
_CPU_TYPES = ("-x86_64-cpu", "-i386-cpu")

#: From this many values of one kind on, one HMP dump costs less than single reads.
_BULK_FROM = 3


class Question:
    """One QMP command; equal ones are sent once. No command: nothing need be asked."""

    __slots__ = ("about", "arguments", "command", "key")

    def __init__(self, command: str, arguments: dict[str, Any] | None, about: Any = None) -> None:
        self.command = command
        self.arguments = arguments
        self.about = about
        self.key = (command, repr(arguments))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Question) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


class Context:
    """What readers need to know beside the values."""

    def __init__(self, plan: Plan, capabilities: Capabilities) -> None:
        self.plan = plan
        self.capabilities = capabilities
        self.bulk_qom = capabilities.has_command("qom-list-get")

    def given(self, family: str, key: str, name: str) -> Any:
        """A planned value by its place, None when the plan has none."""
        for value in self.plan.values:
            if (value.family, value.id, value.property) == (family, key, name):
                return value.written
        return None


def _key(value: Value) -> Key:
    return (value.family, value.id, value.property)


def _hmp(line: str) -> Question:
    return Question("human-monitor-command", {"command-line": line})


def _failed(answer: Any) -> str | None:
    """QEMU's words when the answer is an error."""
    return answer.message if isinstance(answer, Exception) and hasattr(answer, "message") else None


def qom_path(value: Value) -> str:
    """Where a value's object stands in the QOM tree."""
    if value.family == "machine":
        return _UNATTACHED if value.property == "cpu.model" else "/machine"
    return f"{_CONTAINERS[value.family]}{value.id}"


def _name(value: Value) -> str:
    return value.observer.as_ or value.spelled


# -- QOM ------------------------------------------------------------------------------------------


class _Qom:
    @staticmethod
    def ask(values: list[Value], context: Context, round_number: int) -> list[Question]:
        if context.bulk_qom and round_number == 0:
            paths = list(dict.fromkeys(qom_path(v) for v in values))
            return [Question("qom-list-get", {"paths": paths}, paths)]
        if context.bulk_qom:
            paths = list(dict.fromkeys(qom_path(v) for v in values))
            return [Question("qom-list-get", {"paths": [p]}, [p]) for p in paths]
        if round_number == 0:
            return _Qom._older(values)
        return [_Qom._single(v) for v in values]

    @staticmethod
    def _older(values: list[Value]) -> list[Question]:
        """Before 10.1: one command per kind of object where there is one, single reads else."""
        found: list[Question] = []
        devices = [v for v in values if v.family == "device"]
        for value in values:
            if qom_path(value) == _UNATTACHED:
                found.append(Question("qom-list", {"path": _UNATTACHED}))
            elif value.observer.bulk:
                found.append(Question(value.observer.bulk, None))
            elif value.family != "device" or len(devices) < _BULK_FROM:
                found.append(_Qom._single(value))
        if len(devices) >= _BULK_FROM:
            found.append(_hmp("info qtree"))
        return list(dict.fromkeys(found))

    @staticmethod
    def _single(value: Value) -> Question:
        path, name = qom_path(value), _name(value).partition(".")[0]
        return Question("qom-get", {"path": path, "property": name})

    @staticmethod
    def answer(
        values: list[Value], answers: Answers, _context: Context, into: Observations
    ) -> None:
        trees: dict[str, dict[str, Any]] = {}
        singles: dict[Question, Any] = {}
        bulk: dict[str, dict[str, dict[str, Any]]] = {}
        devices: dict[str, dict[str, Any]] = {}
        for question, answer in answers:
            if question.command == "qom-get":
                singles[question] = answer
            elif _failed(answer) is not None:
                if question.command == "qom-list-get" and len(question.about) == 1:
                    trees[question.about[0]] = {}
            elif question.command == "qom-list-get":
                for path, found in zip(question.about, answer, strict=True):
                    trees[path] = _tree(path, found["properties"])
            elif question.command == "qom-list":
                trees[_UNATTACHED] = _tree(_UNATTACHED, answer)
            elif question.command == "human-monitor-command":
                devices = parse_qtree(answer)
            else:
                bulk[question.command] = {str(entry["id"]): entry for entry in answer}
        for value in values:
            seen = _Qom._find(value, trees, singles, bulk, devices)
            if seen is not None:
                into[_key(value)] = seen

    @staticmethod
    def _find(
        value: Value,
        trees: dict[str, dict[str, Any]],
        singles: dict[Question, Any],
        bulk: dict[str, dict[str, dict[str, Any]]],
        devices: dict[str, dict[str, Any]],
    ) -> Observation | None:
        name = _name(value)
        tree = trees.get(qom_path(value))
        if tree is not None:
            return _dig(tree, name)
        if value.family == "device" and value.id in devices:
            return _found(devices[value.id], name)
        if value.observer.bulk in bulk:
            entry = bulk[value.observer.bulk].get(value.id, {})
            return _found(entry, value.observer.bulk_as or name)
        single = _Qom._single(value)
        if single in singles:
            return _single_answer(singles[single], name)
        return None


def _tree(path: str, properties: list[dict[str, Any]]) -> dict[str, Any]:
    """The values of one object by name; of the unattached devices, the model of the CPUs."""
    if path != _UNATTACHED:
        return {p["name"]: p.get("value") for p in properties}
    types = (p["type"].removeprefix("child<").removesuffix(">") for p in properties)
    models = [t.removesuffix(end) for t in types for end in _CPU_TYPES if t.endswith(end)]
    return {"cpu.model": next(iter(models), None)}


def _found(entry: dict[str, Any], name: str) -> Observation | None:
    """A value of a bulk answer; None (ask singly) when the answer does not hold it."""
    return Observation("read", entry[name]) if name in entry else None


def _dig(tree: dict[str, Any], name: str) -> Observation:
    """A value by its dotted name: `limits.iops-total` is a member of the property `limits`."""
    if name in tree:
        value = tree[name]
        # qom-list-get gives null for what its getter refuses to tell.
        if value is None:
            return Observation("unreadable", None, f"QEMU does not tell {name}")
        return Observation("read", value)
    head, dot, rest = name.partition(".")
    inner = tree.get(head)
    if dot and isinstance(inner, dict):
        return _dig(inner, rest)
    return Observation("absent", None, f"QEMU has no property {name} there")


def _single_answer(answer: Any, name: str) -> Observation:
    words = _failed(answer)
    if words is not None:
        missing = "not found" in words
        return Observation("absent" if missing else "unreadable", None, words)
    rest = name.partition(".")[2]
    if rest and isinstance(answer, dict):
        return _dig(answer, rest)
    return Observation("read", answer)


# -- answers that are one mapping ----------------------------------------------------------------


class _Simple:
    """A reader with one question, whose answer becomes {id or "": {name: value}}."""

    def __init__(
        self,
        question: Question,
        parse: Callable[[Any], dict[str, dict[str, Any]]],
        *,
        by_id: bool,
    ) -> None:
        self.question = question
        self.parse = parse
        self.by_id = by_id

    def ask(self, _values: list[Value], _context: Context, round_number: int) -> list[Question]:
        """One question in the first round, none after it."""
        return [] if round_number else [self.question]

    def answer(
        self, values: list[Value], answers: Answers, _context: Context, into: Observations
    ) -> None:
        """Find each value under its id and name."""
        for _question, answer in answers:
            words = _failed(answer)
            entries = {} if words is not None else self.parse(answer)
            for value in values:
                if words is not None:
                    into[_key(value)] = Observation("unreadable", None, words)
                    continue
                entry = entries.get(value.id if self.by_id else "", {})
                into[_key(value)] = _dig(entry, _name(value))


def _parameters(answer: Any) -> dict[str, dict[str, Any]]:
    return {"": dict(answer)}


def _capabilities(answer: Any) -> dict[str, dict[str, Any]]:
    return {"": {entry["capability"]: entry["state"] for entry in answer}}


def _by(member: str) -> Callable[[Any], dict[str, dict[str, Any]]]:
    return lambda answer: {str(entry[member]): entry for entry in answer}


def _block_nodes(answer: Any) -> dict[str, dict[str, Any]]:
    """Node options under the words of -blockdev: QEMU answers with its own older ones."""
    found = {}
    for node in answer:
        again = {
            "read-only": node.get("ro"),
            "detect-zeroes": node.get("detect_zeroes"),
            "driver": node.get("drv"),
        }
        found[node["node-name"]] = {**node, **again}
    return found


def _tpms(answer: Any) -> dict[str, dict[str, Any]]:
    """TPM backends that a device shows to the guest, as -tpmdev has them (QAPI: TPMInfo)."""
    options = ((str(entry["id"]), entry["options"]) for entry in answer)
    return {key: {"type": one["type"], **one.get("data", {})} for key, one in options}


def _jit(answer: Any) -> dict[str, dict[str, Any]]:
    """What TCG says of itself (x-query-jit), as -accel has it.

    QEMU's words: `one-insn-per-tb: off`, `gen code size 0/67103744`.
    """
    found: dict[str, Any] = {}
    for line in answer["human-readable-text"].splitlines():
        name, colon, text = line.partition(": ")
        if colon:
            found[name.strip()] = text.strip()
        elif line.startswith("gen code size"):
            size = line.rpartition("/")[2].strip()
            # Guard pages are not in the figure, and tb-size counts MiB: round up to it.
            found["tb-size"] = -(-int(size) // (1 << 20)) if size.isdigit() else size
    return {"": found}


def _cpus(answer: Any) -> dict[str, dict[str, Any]]:
    return {"": {"smp.cpus": len(answer)}}


def _ram(answer: Any) -> dict[str, dict[str, Any]]:
    return {"": {"memory.size": answer["base-memory"]}}


def _accelerators(answer: Any) -> dict[str, dict[str, Any]]:
    return {"": answer}


class _TunFlags:
    """The kernel's flags of a tap interface, while QEMU holds it: /sys/class/net/IF/tun_flags."""

    @staticmethod
    def ask(_values: list[Value], _context: Context, _round: int) -> list[Question]:
        """Nothing to ask of QEMU, except where the kernel chose the interface's name."""
        return [] if _round else [_hmp("info network")]

    @staticmethod
    def answer(values: list[Value], answers: Answers, context: Context, into: Observations) -> None:
        """Read the flags of each value's interface."""
        network = {} if not answers else parse_network(answers[0][1])
        for value in values:
            given = context.given("netdev", value.id, "ifname")
            name = given or network.get(value.id, {}).get("ifname", "")
            into[_key(value)] = _tun_flag(str(name), value.observer.bit)


def _tun_flag(interface: str, bit: int) -> Observation:
    if not interface or "/" in interface:
        return Observation("unreadable", None, "the interface's name is not known")
    try:
        with open(f"/sys/class/net/{interface}/tun_flags", encoding="ascii") as file:
            flags = int(file.read(64), 0)
    except (OSError, ValueError) as error:
        return Observation("unreadable", None, f"the kernel does not tell: {error}")
    return Observation("read", bool(flags & bit))


#: Observer name (platform data) → reader.
READERS: dict[str, Any] = {
    "qom": _Qom,
    "query-migrate-parameters": _Simple(
        Question("query-migrate-parameters", None), _parameters, by_id=False
    ),
    "query-migrate-capabilities": _Simple(
        Question("query-migrate-capabilities", None), _capabilities, by_id=False
    ),
    "hmp-migrate": _Simple(_hmp("info migrate"), parse_migrate, by_id=False),
    "hmp-migrate-all": _Simple(_hmp("info migrate -a"), parse_migrate, by_id=False),
    "hmp-network": _Simple(_hmp("info network"), parse_network, by_id=True),
    "query-named-block-nodes": _Simple(
        Question("query-named-block-nodes", {"flat": True}), _block_nodes, by_id=True
    ),
    "query-block-exports": _Simple(Question("query-block-exports", None), _by("id"), by_id=True),
    "query-chardev": _Simple(Question("query-chardev", None), _by("label"), by_id=True),
    "query-audiodevs": _Simple(Question("query-audiodevs", None), _by("id"), by_id=True),
    "query-tpm": _Simple(Question("query-tpm", None), _tpms, by_id=True),
    "query-kvm": _Simple(Question("query-kvm", None), _parameters, by_id=False),
    "query-accelerators": _Simple(Question("query-accelerators", None), _accelerators, by_id=False),
    "query-cpus-fast": _Simple(Question("query-cpus-fast", None), _cpus, by_id=False),
    "query-memory-size-summary": _Simple(
        Question("query-memory-size-summary", None), _ram, by_id=False
    ),
    "x-query-jit": _Simple(Question("x-query-jit", None), _jit, by_id=False),
    "tun-flags": _TunFlags,
}
