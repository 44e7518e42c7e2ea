"""Commands: the only SQL about them. What an event makes of a command is the word of `devices.commands.state`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, delete, func, insert, or_, select, true, tuple_, update

from devices.commands import state as life
from devices.commands.state import NEVER_NS, Claimed, Command, CommandFilter, Wanted
from devices.control.news import COUNTER, next_revision
from devices.database.engine import Database, Write
from devices.database.tables import DEVICES, PRESENCE, TENANTS
from devices.database.tables_control import COMMAND_ROUTES, COMMANDS
from devices.database.tables_gateways import CHILDREN
from devices.gateways import ways
from devices.gateways.names import known_to_gateways
from devices.query.store import found_by
from devices.query.tree import EVERY_DEVICE, Node
from devices.rows import Deed, Who
from wire import clock
from wire.errors import Conflict, HeadwaterError, NotFound

IDS = 5_000  # bound values a statement
_PLACES = 1 << 20  # commands made by one transaction
_NAMES = tuple(Command.__dataclass_fields__)
_C = COMMANDS.c
Change = Callable[[Command, int], Command]


@dataclass(slots=True, frozen=True)
class Due:
    """A command whose turn it is, and whether its device can be reached by MQTT now: itself or through its gateway."""

    command: Command
    is_reachable: bool
    gateway: str | None = None


class CommandStore:
    """Commands; thread-safe. Each method is one transaction."""

    def __init__(self, database: Database, window: int, queue: int) -> None:
        """Use a database; `window` commands of a device are on their way at once, `queue` may wait."""
        self._database = database
        self._window = window
        self._queue = queue

    def add(self, tenant: str, wanted: Sequence[Wanted], who: Who) -> list[Command | HeadwaterError]:
        """Queue commands; each has its own outcome."""
        with self._database.write(COUNTER) as transaction:
            return self.add_in(transaction, tenant, wanted, who)

    def add_in(
        self, transaction: Write, tenant: str, wanted: Sequence[Wanted], who: Who
    ) -> list[Command | HeadwaterError]:
        """Queue commands in an open transaction; those of a known idempotency key are the ones of before."""
        revision = next_revision(transaction)  # also takes the lock, in a transaction that has another one
        ids = list({each.device for each in wanted})
        known = _known_devices(transaction, tenant, ids)
        waiting = _waiting(transaction, tenant, ids)
        keyed = _keyed(transaction, tenant, wanted)
        outcomes: list[Command | HeadwaterError] = []
        fresh: list[Command] = []
        for place, each in enumerate(wanted):
            made = life.begin(each, tenant, who.actor, transaction.now_ns)
            first_free = waiting.get(each.device, 0) < self._window
            made = replace(
                made, seq=revision * _PLACES + place, revision=revision, due_ns=made.due_ns if first_free else NEVER_NS
            )
            outcome = self._judge(each, made, known, waiting, keyed)
            outcomes.append(outcome)
            if outcome is made:
                fresh.append(made)
                waiting[each.device] = waiting.get(each.device, 0) + 1
        transaction.execute(insert(COMMANDS), [_values(command) for command in fresh])
        transaction.audit(Deed(who, "command.send", each.device, {"id": each.id, "name": each.name}) for each in fresh)
        return outcomes

    def find(self, tenant: str, command_id: str) -> Command:
        """Give one command.

        Raises:
            NotFound: the tenant has no such command.
        """
        query = select(COMMANDS).where(_C.tenant == tenant, _C.id == command_id)
        with self._database.read() as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            raise life.unknown(command_id)
        return _to_command(row)

    def search(self, wanted: CommandFilter) -> list[Command]:
        """List commands, newest first.

        Raises:
            NotFound: no such device.
        """
        query = select(COMMANDS).where(_C.tenant == wanted.tenant).order_by(_C.seq.desc()).limit(wanted.limit)
        pairs = ((_C.device, wanted.device), (_C.state, wanted.state), (_C.name, wanted.name), (_C.job, wanted.job))
        for column, value in pairs:
            query = query if value is None else query.where(column == value)
        if wanted.before_seq is not None:
            query = query.where(_C.seq < wanted.before_seq)
        with self._database.read() as connection:
            among = found_by(connection, wanted.tenant, wanted.among)
            query = query if wanted.among is EVERY_DEVICE else query.where(_C.device.in_(among))
            found = [_to_command(row) for row in connection.execute(query).mappings()]
            named = among.where(DEVICES.c.id == wanted.device)
            if not found and wanted.device is not None and connection.execute(named).first() is None:
                raise NotFound(f"no device {wanted.device!r}", code="device_not_found")
        return found

    def open_of_job(self, tenant: str, job: str, limit: int, among: Node = EVERY_DEVICE) -> list[str]:
        """Give the ids of a job's commands to some devices that have not ended, oldest first."""
        query = select(_C.id).where(_C.tenant == tenant, _C.job == job, _C.active.is_(True))
        with self._database.read() as connection:
            if among is not EVERY_DEVICE:
                query = query.where(_C.device.in_(found_by(connection, tenant, among)))
            return list(connection.execute(query.order_by(_C.seq).limit(limit)).scalars())

    def change(self, ids: Sequence[str], change: Change, who: Who | None = None) -> dict[str, Command]:
        """Replace commands by what `change` makes of them; where one ends, the next of its device has its turn.

        Args:
            ids: those that there are not are left out of the answer.
            change: gets the command and the time of the transaction.
            who: is audited for each that ends by it.
        """
        with self._database.write(COUNTER) as transaction:
            old = _read(transaction, _C.id, ids)
            new = {key: change(command, transaction.now_ns) for key, command in old.items()}
            self._write(transaction, old, new)
            ended = [new[key] for key in new if old[key].active and not new[key].active]
            if who is not None:
                transaction.audit(Deed(who, "command.cancel", each.device, {"id": each.id}) for each in ended)
        return new

    def take(self, tenant: str, devices: Sequence[str], via: str, at_most: int | None = None) -> list[Command]:
        """Hand out to devices what they have to do now: their first commands that were not sent, or not answered."""
        mine = and_(_C.tenant == tenant, _C.device.in_(devices))
        if not self._has_ready(mine):
            return []
        with self._database.write(COUNTER) as transaction:
            ready = and_(mine, self._is_ready(transaction.now_ns))
            found = _read_where(transaction, ready, at_most or self._window * len(devices))
            new = {key: life.sent(command, transaction.now_ns, via) for key, command in found.items()}
            self._write(transaction, found, new)
        return list(found.values())

    def claim(self, protocol: str, limit: int, lease_ns: int) -> list[Claimed]:
        """Give a protocol's service commands of its active devices; nobody else gets them before the lease is over."""
        owner = and_(DEVICES.c.tenant == COMMAND_ROUTES.c.tenant, DEVICES.c.id == COMMAND_ROUTES.c.device)
        routed = select(COMMAND_ROUTES.c.device).join(DEVICES, owner).where(COMMAND_ROUTES.c.protocol == protocol)
        routed = routed.where(DEVICES.c.state == "active", DEVICES.c.tenant.not_in(_IDLE))
        theirs = _C.device.in_(routed)
        if not self._has_ready(theirs):
            return []
        with self._database.write(COUNTER) as transaction:
            found = _read_where(transaction, and_(theirs, self._is_ready(transaction.now_ns)), limit)
            until_ns = transaction.now_ns + lease_ns
            leased = {key: replace(each, retry_ns=until_ns, form=None) for key, each in found.items()}
            self._write(transaction, found, leased)
            known_as = known_to_gateways(transaction, found.values())
        return [Claimed(each, *known_as[each.tenant, each.device]) for each in found.values()]

    def route(self, protocol: str, devices: Sequence[str], *, ends: bool = False) -> int:
        """Note that a protocol's service sends the commands of these devices, or no longer; give how many exist."""
        with self._database.write(COUNTER) as transaction:
            query = select(DEVICES.c.tenant, DEVICES.c.id).where(DEVICES.c.id.in_(devices))
            known = [{"tenant": tenant, "device": key} for tenant, key in transaction.execute(query)]
            ids = [row["device"] for row in known]
            theirs = COMMAND_ROUTES.c.protocol == protocol if ends else true()  # another may have taken them over
            transaction.execute(delete(COMMAND_ROUTES).where(COMMAND_ROUTES.c.device.in_(ids), theirs))
            next_revision(transaction)  # who waits for commands looks again: theirs may have waited for it
            if not ends:
                transaction.execute(insert(COMMAND_ROUTES), [row | {"protocol": protocol} for row in known])
        return len(known)

    def _has_ready(self, mine: ColumnElement[bool]) -> bool:
        query = select(_C.id).where(mine, self._is_ready(clock.now_ns())).limit(1)
        with self._database.read() as connection:
            return connection.execute(query).first() is not None

    def _is_ready(self, now_ns: int) -> ColumnElement[bool]:
        is_time = and_(_C.retry_ns <= now_ns, _C.deadline_ns > now_ns, _C.tries < _C.max_tries)
        return and_(_C.active, _C.state.in_(("queued", "sent")), is_time, _is_first(self._window))

    def _judge(
        self,
        wanted: Wanted,
        made: Command,
        known: set[str],
        waiting: dict[str, int],
        keyed: dict[tuple[str, str], Command],
    ) -> Command | HeadwaterError:
        if wanted.device not in known:
            return NotFound(f"no device {wanted.device!r}", code="device_not_found")
        key = (wanted.device, wanted.idempotency_key or "")
        before = keyed.get(key)
        if before is not None:
            is_same = (before.name, before.params) == (wanted.name, wanted.params)
            text = f"the key {wanted.idempotency_key!r} was used for another command"
            return before if is_same else Conflict(text, code="idempotency_conflict")
        if made.deadline_ns <= made.created_ns:
            return Conflict("the deadline was over before it was sent", code="deadline_over")
        if waiting.get(wanted.device, 0) >= self._queue:
            text = f"{wanted.device} has {self._queue} commands that have not ended"
            return Conflict(text, code="too_many_commands")
        if wanted.idempotency_key:
            keyed[key] = made
        return made

    def _write(self, transaction: Write, old: dict[str, Command], new: dict[str, Command]) -> None:
        changed = [key for key in new if new[key] != old[key]]
        if not changed:
            return
        revision = next_revision(transaction)
        rows = [_values(replace(new[key], revision=revision), "new_") for key in changed]
        transaction.execute(_UPDATE, rows)
        freed = {(new[key].tenant, new[key].device) for key in changed if old[key].active and not new[key].active}
        transaction.execute(
            _NEXT_TURN, [{"t": t, "d": d, "now": transaction.now_ns, "rev": revision} for t, d in freed]
        )


class CommandQueue:
    """What the one that sends commands by MQTT needs; thread-safe."""

    def __init__(self, database: Database, window: int) -> None:
        self._database = database
        self._window = window

    def due(self, now_ns: int, limit: int) -> list[Due]:
        """Give commands whose turn it is, in their order, with whether their devices are connected."""
        present = and_(PRESENCE.c.tenant == _C.tenant, PRESENCE.c.device == _C.device)
        routed = and_(COMMAND_ROUTES.c.tenant == _C.tenant, COMMAND_ROUTES.c.device == _C.device)
        owner = and_(DEVICES.c.tenant == _C.tenant, DEVICES.c.id == _C.device)
        more = (PRESENCE.c.connected, PRESENCE.c.online, PRESENCE.c.said, COMMAND_ROUTES.c.protocol)
        columns = select(COMMANDS, *more, *ways.COLUMNS, DEVICES.c.state.label("device_state"))
        joined = columns.select_from(COMMANDS.join(DEVICES, owner).outerjoin(PRESENCE, present))
        joined = ways.join(joined.outerjoin(COMMAND_ROUTES, routed), _C.tenant, _C.device)
        query = joined.where(_C.active.is_(True), _C.due_ns <= now_ns, _C.deadline_ns > now_ns, _is_first(self._window))
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(_C.due_ns, _C.seq).limit(limit)).mappings()
            return [_to_due(row) for row in rows]

    def shelve(self, commands: Sequence[Command]) -> None:
        """Look at these no more before something happens: their devices cannot be reached.

        One that was woken since it was read stays awake: its device came just now.
        """
        with self._database.write(COUNTER) as transaction:
            transaction.execute(_SHELVE, [{"key": each.id, "was": each.due_ns} for each in commands])

    def wake(self, devices: Sequence[str]) -> bool:
        """Give the commands of devices that have come, and of their children, their turn; tell whether there are any.

        Not of those that a protocol's service sends to: it may be sending at this moment.
        """
        mine = and_(_C.active.is_(True), _C.state.in_(("queued", "sent")), _C.device.not_in(_ROUTED))
        with self._database.read() as connection:
            query = select(_C.device).where(mine, _is_with(devices)).distinct()
            waiting = list(connection.execute(query).scalars())
        if waiting:
            with self._database.write(COUNTER) as transaction:
                values = {"due_ns": transaction.now_ns, "retry_ns": transaction.now_ns}
                theirs = and_(mine, _C.device.in_(waiting), _is_first(self._window))
                transaction.execute(update(COMMANDS).where(theirs).values(**values))
        return bool(waiting)

    def wake_reachable(self) -> None:
        """The same for all that are connected: in case that news of their coming was missed."""
        here = select(PRESENCE.c.device).where(PRESENCE.c.connected)
        mine = and_(_C.active.is_(True), _C.state == "queued", _C.due_ns == NEVER_NS)
        shelved = and_(mine, _is_with(here), _is_first(self._window))
        with self._database.read() as connection:
            if not connection.execute(select(_C.id).where(shelved).limit(1)).first():
                return
        with self._database.write(COUNTER) as transaction:
            transaction.execute(update(COMMANDS).where(shelved).values(due_ns=transaction.now_ns))

    def overdue(self, now_ns: int, limit: int) -> list[str]:
        """Give those whose deadline is over."""
        query = select(_C.id).where(_C.active.is_(True), _C.deadline_ns <= now_ns).limit(limit)
        with self._database.read() as connection:
            return list(connection.execute(query).scalars())

    def forget(self, before_ns: int) -> None:
        """Delete those that ended, and whose deadline was before a time."""
        with self._database.write(COUNTER) as transaction:
            transaction.execute(delete(COMMANDS).where(_C.active.is_(False), _C.deadline_ns < before_ns))


_IDLE = select(TENANTS.c.id).where(TENANTS.c.state != "active")
_ROUTED = select(COMMAND_ROUTES.c.device)
_UPDATE = (
    update(COMMANDS).where(_C.id == bindparam("new_id")).values({n: bindparam(f"new_{n}") for n in _NAMES if n != "id"})
)
_SHELVE = update(COMMANDS).where(_C.id == bindparam("key"), _C.due_ns == bindparam("was")).values(due_ns=NEVER_NS)
_LATER = COMMANDS.alias("later")
_NEXT = select(func.min(_LATER.c.seq)).where(
    _LATER.c.tenant == bindparam("t"),
    _LATER.c.device == bindparam("d"),
    _LATER.c.active.is_(True),
    _LATER.c.state == "queued",
    _LATER.c.due_ns == NEVER_NS,
)
_NEXT_TURN = (
    update(COMMANDS)
    .where(_C.tenant == bindparam("t"), _C.device == bindparam("d"), _C.seq == _NEXT.scalar_subquery())
    .values(due_ns=bindparam("now"), revision=bindparam("rev"))
)


def _is_first(window: int) -> ColumnElement[bool]:
    """Hold for the first commands of each device, as many as may be on their way at once."""
    earlier = COMMANDS.alias("earlier")
    mine = and_(earlier.c.tenant == _C.tenant, earlier.c.device == _C.device, earlier.c.active.is_(True))
    ahead = select(func.count()).select_from(earlier).where(mine, earlier.c.seq < _C.seq)
    return ahead.scalar_subquery() < window


def _is_with(devices: Any) -> ColumnElement[bool]:
    """Hold for commands of these devices and of the children of those that are gateways."""
    children = select(CHILDREN.c.device).where(CHILDREN.c.gateway.in_(devices))
    return or_(_C.device.in_(devices), _C.device.in_(children))


def _to_due(row: Any) -> Due:
    command = _to_command(row)
    is_active = row["device_state"] == "active"
    if command.form is not None:
        return Due(command, is_active)
    may_send = is_active and row["protocol"] is None
    if ways.is_here(row):
        return Due(command, may_send)
    gateway = ways.gateway_of(row) if ways.is_here(row, "gateway_") else None
    return Due(command, may_send and gateway is not None, gateway)


def _known_devices(transaction: Write, tenant: str, ids: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for start in range(0, len(ids), IDS):
        part = DEVICES.c.id.in_(ids[start : start + IDS])
        query = select(DEVICES.c.id).where(DEVICES.c.tenant == tenant, DEVICES.c.state != "retired", part)
        found.update(transaction.execute(query).scalars())
    return found


def _waiting(transaction: Write, tenant: str, ids: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for start in range(0, len(ids), IDS):
        mine = and_(_C.tenant == tenant, _C.active.is_(True), _C.device.in_(ids[start : start + IDS]))
        query = select(_C.device, func.count()).where(mine).group_by(_C.device)
        found |= {device: int(number) for device, number in transaction.execute(query).all()}
    return found


def _keyed(transaction: Write, tenant: str, wanted: Sequence[Wanted]) -> dict[tuple[str, str], Command]:
    pairs = [(each.device, each.idempotency_key) for each in wanted if each.idempotency_key]
    found: dict[tuple[str, str], Command] = {}
    for start in range(0, len(pairs), IDS // 2):
        part = tuple_(_C.device, _C.idempotency_key).in_(pairs[start : start + IDS // 2])
        for row in transaction.execute(select(COMMANDS).where(_C.tenant == tenant, part)).mappings():
            found[row["device"], row["idempotency_key"]] = _to_command(row)
    return found


def _read(transaction: Write, column: Any, ids: Sequence[str]) -> dict[str, Command]:
    found: dict[str, Command] = {}
    for start in range(0, len(ids), IDS):
        found |= _read_where(transaction, column.in_(ids[start : start + IDS]), IDS)
    return found


def _read_where(transaction: Write, condition: ColumnElement[bool], limit: int) -> dict[str, Command]:
    query = select(COMMANDS).where(condition).order_by(_C.seq).limit(limit)
    return {row["id"]: _to_command(row) for row in transaction.execute(query).mappings()}


def _to_command(row: Any) -> Command:
    return Command(**{name: row[name] for name in _NAMES})


def _values(command: Command, prefix: str = "") -> dict[str, Any]:
    return {prefix + name: getattr(command, name) for name in _NAMES}
