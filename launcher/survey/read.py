"""Values read back from one instance of each type, and QEMU's own words where there is none.

A reading is `{type: {property: value}}`; a value is what QEMU answered, `{"host": why}` where it is
the host's, or `{"error": words}`. The property `*` stands for the type itself and is there only
where no instance could be made.
"""

from __future__ import annotations

from launcher.errors import CommandError, QEMUError
from launcher.survey import kits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
    from typing import Any

    from launcher.monitor import Monitor
    from launcher.survey.ask import Asker

    Reading = dict[str, dict[str, Any]]
    Make = Callable[[Asker, Monitor, str, dict[str, Any]], Awaitable[dict[str, Any]]]
    #: (family, type) → property → value, of a platform; already as QMP wants them.
    Pinned = Mapping[tuple[str, str], Mapping[str, Any]]


class Where:
    """Which machine to ask, with which devices, under which pins."""

    def __init__(self, machine: str = "none", pinned: Pinned | None = None) -> None:
        self.machine = machine
        self.pinned: Pinned = pinned or {}
        self.words = [*kits.devices_of(machine)]
        for name, value in self.pinned.get(("migration-property", "migration"), {}).items():
            self.words += ["-global", f"migration.{name}={value}"]

    def of(self, family: str, type_: str) -> dict[str, Any]:
        """The pinned properties of one type."""
        return dict(self.pinned.get((family, type_), {}))


# -- objects --------------------------------------------------------------------------------------


async def read_objects(asker: Asker, where: Where, hazards: Collection[str]) -> Reading:
    """An instance of every user-creatable type: all in one QEMU, the dangerous ones each alone."""
    types = list(asker.replies["user-creatable"])
    found: Reading = {t: {"*": {"host": kits.HOST_OBJECTS[t]}} for t in types if _of_host(t)}
    safe = [t for t in types if t not in hazards and t not in found]
    alone = [t for t in types if t in hazards and t not in found]
    if not _adds_objects(asker):
        alone, safe = [*safe, *alone], []
    try:
        found |= await asker.ask(
            lambda m: _objects(asker, m, where, safe), where.words, where.machine
        )
    except QEMUError:
        alone = [*safe, *alone]  # one of them is a hazard that the data does not know yet
    for one in alone:
        found |= await _alone(asker, where, one)
    return dict(sorted(found.items()))


def _of_host(qom_type: str) -> bool:
    return qom_type in kits.HOST_OBJECTS


def _adds_objects(asker: Asker) -> bool:
    """The storage daemon of 5.2 lists `object-add`, and does not find it when it is sent."""
    if not any(e["name"] == "object-add" for e in asker.replies["query-qmp-schema"]):
        return False
    return asker.system or not _old_object_add(asker)


async def _alone(asker: Asker, where: Where, qom_type: str) -> Reading:
    try:
        if _adds_objects(asker):
            found: Reading = await asker.ask(
                lambda m: _objects(asker, m, where, [qom_type]), where.words, where.machine
            )
            return found
        members = {**kits.OBJECTS.get(qom_type, {}), **where.of("object", qom_type)}
        keyval = [qom_type, f"id={qom_type}", *(f"{k}={_keyval(v)}" for k, v in members.items())]
        words = ("--object", ",".join(keyval))
        return {qom_type: await asker.ask(lambda m: _qom(asker, m, "object", qom_type), words)}
    except QEMUError as error:
        return {qom_type: {"*": {"error": asker.words_of(error)}}}


def _keyval(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


async def _objects(asker: Asker, monitor: Monitor, where: Where, types: Iterable[str]) -> Reading:
    found: Reading = {}
    await _try(monitor, "netdev_add", {"type": "hubport", "id": "survey", "hubid": 0})
    for qom_type in types:
        members = {**kits.OBJECTS.get(qom_type, {}), **where.of("object", qom_type)}
        if "@chardev@" in members.values():
            await _chardev(monitor, f"for-{qom_type}")
        members = asker.fill(members, f"for-{qom_type}")
        if _old_object_add(asker):
            members = {"props": members}
        members = {"qom-type": qom_type, "id": qom_type, **members}
        error = await _try(monitor, "object-add", members)
        if error is not None:
            found[qom_type] = {"*": {"error": asker.words_of(error)}}
        else:
            found[qom_type] = await _qom(asker, monitor, "object", qom_type)
    return found


def _old_object_add(asker: Asker) -> bool:
    """Until 5.2 the properties stood in an object of their own (QAPI: object-add, `props`)."""
    entities = {e["name"]: e for e in asker.replies["query-qmp-schema"]}
    members = entities[entities["object-add"]["arg-type"]].get("members", ())
    return any(m["name"] == "props" for m in members)


async def _chardev(monitor: Monitor, name: str) -> None:
    backend = {"type": "null", "data": {}}
    await _try(monitor, "chardev-add", {"id": name, "backend": backend})


async def _try(monitor: Monitor, command: str, arguments: dict[str, Any]) -> CommandError | None:
    try:
        await monitor.execute(command, arguments)
    except CommandError as error:
        return error
    return None


async def _qom(asker: Asker, monitor: Monitor, family: str, name: str) -> dict[str, Any]:
    """All properties of the object or chardev that is called as its type."""
    path = f"/{family}s/{name}"
    listed = await monitor.execute("qom-list", {"path": path})
    names = sorted(p["name"] for p in listed if not p["type"].startswith("child<"))
    names = [n for n in names if n != "type"]
    answers = await monitor.execute_all(
        [("qom-get", {"path": path, "property": one}) for one in names]
    )
    found: dict[str, Any] = {}
    for one, answer in zip(names, answers, strict=True):
        if isinstance(answer, CommandError):
            found[one] = {"error": asker.words_of(answer)}
        else:
            found.update(flattened(one, asker.plain(answer)))
    return hosts_out(family, name, found)


def flattened(name: str, value: Any) -> dict[str, Any]:
    """A struct as one value for each member: `limits` → `limits.bps-total`, …."""
    if not isinstance(value, dict) or not value:
        return {name: value}
    found: dict[str, Any] = {}
    for inner, one in value.items():
        found.update(flattened(f"{name}.{inner}" if name else inner, one))
    return found


def hosts_out(family: str, type_: str, values: dict[str, Any]) -> dict[str, Any]:
    """The host's values replaced by the reason why they are not kept."""
    found = {}
    for name, value in sorted(values.items()):
        why = kits.host_value(family, type_, name)
        found[name] = {"host": why} if why else value
    return found


# -- backends -------------------------------------------------------------------------------------


async def read_backends(asker: Asker, where: Where) -> dict[str, Reading]:
    """An instance of every chardev, netdev and block driver that needs nothing of the host."""
    return {
        "chardev": await _family(asker, where, "chardev", kits.CHARDEVS, _one_chardev),
        "netdev": await _family(asker, where, "netdev", kits.NETDEVS, _one_netdev),
        "blockdev": await _family(asker, where, "blockdev", kits.BLOCKDEVS, _one_node),
    }


async def _family(
    asker: Asker, where: Where, family: str, kit: dict[str, dict[str, Any]], make: Make
) -> Reading:
    """All types of a kit in one QEMU; each in its own where one of them ends it."""

    async def make_all(monitor: Monitor, types: Iterable[str]) -> Reading:
        found: Reading = {}
        for type_ in types:
            members = {**kit[type_], **where.of(family, type_)}
            try:
                values = await make(asker, monitor, type_, members)
            except CommandError as error:
                values = {"*": {"error": asker.words_of(error)}}
            found[type_] = hosts_out(family, type_, values)
        return found

    async def ask(types: list[str]) -> Reading:
        found: Reading = await asker.ask(lambda monitor: make_all(monitor, types))
        return found

    try:
        return await ask(sorted(kit))
    except QEMUError:
        found: Reading = {}
        for type_ in sorted(kit):
            try:
                found |= await ask([type_])
            except QEMUError as error:
                found[type_] = {"*": {"error": asker.words_of(error)}}
        return found


async def _one_chardev(
    asker: Asker, monitor: Monitor, type_: str, members: dict[str, Any]
) -> dict[str, Any]:
    await _chardev(monitor, f"for-{type_}")
    backend = {"type": type_, "data": asker.fill(members, f"for-{type_}")}
    await monitor.execute("chardev-add", {"id": type_, "backend": backend})
    try:
        found = await _qom(asker, monitor, "chardev", type_)
    except CommandError as error:
        found = {"*": {"error": asker.words_of(error)}}
    shown = await monitor.execute("query-chardev")
    entry: dict[str, Any] = next((c for c in shown if c["label"] == type_), {})
    found["query-chardev.filename"] = asker.plain(entry.get("filename"))
    return found


async def _one_netdev(
    asker: Asker, monitor: Monitor, type_: str, members: dict[str, Any]
) -> dict[str, Any]:
    from launcher.verify.hmp import parse_network

    await monitor.execute("netdev_add", {"type": type_, "id": type_, **asker.fill(members)})
    text = await monitor.execute("human-monitor-command", {"command-line": "info network"})
    shown = parse_network(text.replace("\r", "")).get(type_, {})
    return {
        name: asker.plain(value) for name, value in shown.items() if name not in ("index", "type")
    }


#: What query-named-block-nodes calls otherwise than `blockdev-add`, and what is of this run.
_NODE_NAMES = {"ro": "read-only", "detect_zeroes": "detect-zeroes"}
_NODE_OWN = ("node-name", "file", "drv", "image.filename", "children", "backing_file_depth")


async def _one_node(
    asker: Asker, monitor: Monitor, type_: str, members: dict[str, Any]
) -> dict[str, Any]:
    if "throttle-group" in members:
        named = {"qom-type": "throttle-group", "id": members["throttle-group"]}
        await _try(monitor, "object-add", named)
    await monitor.execute(
        "blockdev-add", {"driver": type_, "node-name": type_, **asker.fill(members)}
    )
    nodes = await monitor.execute("query-named-block-nodes")
    entry = next(node for node in nodes if node["node-name"] == type_)
    values = flattened("", asker.plain(entry))
    return {
        _NODE_NAMES.get(name, name): value
        for name, value in values.items()
        if name not in _NODE_OWN and not name.startswith("image.backing-image")
    }


async def read_audio(asker: Asker, where: Where) -> Reading:
    """Audio backends, as far as QEMU shows them: `query-audiodevs`, from 8.0 on."""
    found: Reading = {}
    known = any(e["name"] == "query-audiodevs" for e in asker.replies["query-qmp-schema"])
    for driver, needs in kits.AUDIODEVS.items():
        pinned = [f"{name}={value}" for name, value in where.of("audiodev", driver).items()]
        words = ("-audiodev", ",".join([driver, "id=survey", *filter(None, [needs]), *pinned]))

        async def ask(monitor: Monitor) -> dict[str, Any]:
            shown = await monitor.execute("query-audiodevs") if known else []
            entry: dict[str, Any] = next((a for a in shown if a["id"] == "survey"), {})
            return flattened("", {n: v for n, v in entry.items() if n not in ("id", "driver")})

        try:
            values = asker.plain(await asker.ask(ask, words))
            found[driver] = hosts_out("audiodev", driver, values)
        except QEMUError as error:
            found[driver] = {"*": {"error": asker.words_of(error)}}
    return found


# -- migration and the accelerator ----------------------------------------------------------------


async def read_migration(asker: Asker, where: Where) -> dict[str, Reading]:
    """Parameters, capabilities, and the properties that only the human monitor shows."""

    async def ask(monitor: Monitor) -> dict[str, Reading]:
        from launcher.verify.hmp import parse_migrate

        pinned = where.of("migration-parameter", "migration")
        if pinned:
            await monitor.execute("migrate-set-parameters", pinned)
        parameters = await monitor.execute("query-migrate-parameters")
        capabilities = await monitor.execute("query-migrate-capabilities")
        listed = asker.replies["device-list-properties"]["migration"]
        names = {p["name"] for p in listed}
        shown: dict[str, str] = {}
        for line in ("info migrate", "info migrate -a"):
            text = await monitor.execute("human-monitor-command", {"command-line": line})
            shown |= parse_migrate(text.replace("\r", ""))[""]
        values: dict[str, Any] = {}
        for name in sorted(parameters):
            values.update(flattened(name, parameters[name]))
        return {
            "migration-parameter": {"migration": values},
            "migration-capability": {
                "migration": dict(sorted((c["capability"], c["state"]) for c in capabilities))
            },
            "migration-property": {
                "migration": {name: shown[name] for name in sorted(names & set(shown))}
            },
        }

    found: dict[str, Reading] = await asker.ask(ask, where.words, where.machine)
    return found


async def read_accel(asker: Asker, where: Where) -> Reading:
    """What `x-query-jit` shows of tcg; no other accelerator shows anything."""
    schema = {e["name"] for e in asker.replies["query-qmp-schema"]}
    if "x-query-jit" not in schema or not asker.has_tcg:
        return {}

    async def ask(monitor: Monitor) -> str:
        answer = await monitor.execute("x-query-jit")
        return str(answer["human-readable-text"])

    text = await asker.ask(ask, where.words, where.machine)
    found: dict[str, Any] = {"tb-size": {"host": kits.host_value("accel", "tcg", "tb-size")}}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "one-insn-per-tb":
            found["one-insn-per-tb"] = value.strip()
    return {"tcg": found}
