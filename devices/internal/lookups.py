"""What other services ask the registry for: identities, changes, the directory. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Literal

import orjson
from sqlalchemy import Connection, and_, func, select

from devices.credentials import CERTIFICATE
from devices.database.engine import Database
from devices.database.tables import CHANGES, COUNTERS, CREDENTIALS, DEVICE_TYPES, DEVICES, PRESENCE, TENANTS
from devices.database.tables_gateways import CHILDREN, GATEWAYS, NAMES
from devices.rows import BrokerCredential
from devices.store import PARAMETERS
from devices.types.store import select_types, to_type
from wire.devices import Changes, CredentialRecord, DeviceIdentity, DeviceType, LookupResult, own_limit, type_key
from wire.tenants import Limits

_SUSPENDED = select(TENANTS.c.id).where(TENANTS.c.state != "active")
_OWNS = and_(CREDENTIALS.c.tenant == DEVICES.c.tenant, CREDENTIALS.c.device == DEVICES.c.id)


class LookupStore:
    """Answers for other services; thread-safe, each from one consistent view."""

    def __init__(self, database: Database, *, lists_full: bool = True) -> None:
        """`lists_full` = the broker's list leaves out who of a full tenant may not come."""
        self._database = database
        self._lists_full = lists_full

    def lookup(self, ids: Sequence[str]) -> LookupResult:
        """Give the devices of these ids with their credentials and types; unknown ids are absent."""
        found: dict[str, DeviceIdentity] = {}
        with self._database.read() as connection:
            for start in range(0, len(ids), PARAMETERS):
                _read_identities(connection, ids[start : start + PARAMETERS], found)
            idle, rates = _read_tenants(connection, {device.tenant for device in found.values()})
            for device in found.values():
                device.state = "disabled" if device.tenant in idle else device.state
            worn = {(device.tenant, device.type) for device in found.values() if device.type is not None}
            types = _read_types(connection, worn)
            revision = _revision(connection)
            return LookupResult(devices=list(found.values()), types=types, revision=revision, rate_limits=rates)

    def changes(self, since: int) -> Changes:
        """Tell what changed after a revision, or that it is too long ago to tell."""
        with self._database.read() as connection:
            revision = _revision(connection)
            oldest = connection.execute(select(func.min(CHANGES.c.revision))).scalar() or revision + 1
            if since > revision or since < oldest - 1:
                return Changes(revision=revision, reset=True)
            query = select(CHANGES.c.kind, CHANGES.c.key).where(CHANGES.c.revision > since).order_by(CHANGES.c.revision)
            rows = [tuple(row) for row in connection.execute(query)]
        kinds = ("device", "type", "tenant", "token", "topic")
        named = {kind: list(dict.fromkeys(key for k, key in rows if k == kind)) for kind in kinds}
        return Changes(
            revision=revision,
            devices=named["device"],
            types=named["type"],
            tenants=named["tenant"],
            tokens=bool(named["token"]),
            topics=bool(named["topic"]),
        )

    def directory(self, after: str, limit: int) -> tuple[list[dict[str, Any]], int]:
        """List devices briefly in order of their ids, and give the revision."""
        present = and_(PRESENCE.c.tenant == DEVICES.c.tenant, PRESENCE.c.device == DEVICES.c.id)
        columns = select(DEVICES.c.id, DEVICES.c.type, DEVICES.c.tags, PRESENCE.c.online, DEVICES.c.tenant)
        query = columns.select_from(DEVICES.outerjoin(PRESENCE, present))
        paged = query.where(DEVICES.c.id > after).order_by(DEVICES.c.id).limit(limit)
        with self._database.read() as connection:
            rows = connection.execute(paged).all()
            revision = _revision(connection)
        names = ("id", "type", "tags", "online", "tenant")
        return [
            dict(zip(names, (key, kind, orjson.loads(tags), bool(online), tenant), strict=True))
            for key, kind, tags, online, tenant in rows
        ], revision

    def revision(self) -> int:
        """Give the number of the newest change."""
        with self._database.look() as connection:
            return _revision(connection)

    def surplus(self) -> list[str]:
        """Give the devices that are connected beyond what their tenants may have: those that came last."""
        with self._database.look() as connection:
            beyond = ((tenant, staying) for tenant, staying in _full(connection).items())
            here = select(PRESENCE.c.device).where(PRESENCE.c.online.is_(True), PRESENCE.c.connected)
            found = ((set(connection.execute(here.where(PRESENCE.c.tenant == t)).scalars()), s) for t, s in beyond)
            return sorted(device for connected, staying in found for device in connected - staying)

    def full(self) -> dict[str, frozenset[str]]:
        """Give the tenants with as many devices at the broker as they may have, each with those that may stay.

        These are the ones that came first.
        """
        with self._database.look() as connection:
            return _full(connection)

    def broker_credentials(
        self, now_ns: int, ids: Sequence[str] | None = None
    ) -> tuple[list[BrokerCredential], int | None]:
        """Give the valid credentials of active devices, newest first within a device, and when that next changes.

        With `ids` only of those devices. Of a tenant that is full, only those that may stay have one, unless the broker
        asks of each by itself.
        """
        columns = select(
            CREDENTIALS.c.device,
            CREDENTIALS.c.id,
            CREDENTIALS.c.broker_hash,
            DEVICES.c.broker_credential,
            CREDENTIALS.c.not_before_ns,
            CREDENTIALS.c.not_after_ns,
            DEVICES.c.tenant,
        )
        active = columns.select_from(CREDENTIALS.join(DEVICES, _OWNS)).where(DEVICES.c.state.in_(("active", "held")))
        active = active.where(DEVICES.c.tenant.not_in(_SUSPENDED))
        active = active.order_by(CREDENTIALS.c.device, CREDENTIALS.c.created_ns.desc(), CREDENTIALS.c.id)
        parts = [None] if ids is None else [ids[i : i + PARAMETERS] for i in range(0, len(ids), PARAMETERS)]
        valid, boundaries = [], []
        with self._database.read() as connection:
            full = _full(connection) if self._lists_full else {}
            rows = (
                row
                for part in parts
                for row in connection.execute(active if part is None else active.where(DEVICES.c.id.in_(part)))
            )
            for device, key, broker_hash, chosen, start, end, tenant in rows:
                boundaries += [edge for edge in (start, end) if edge is not None and edge > now_ns]
                if broker_hash == CERTIFICATE:
                    continue  # the broker takes it by its authority and the revocation list
                if tenant in full and device not in full[tenant]:
                    continue
                if (start is None or start <= now_ns) and (end is None or end > now_ns):
                    valid.append(BrokerCredential(device, key, broker_hash, key == chosen))
        return valid, min(boundaries, default=None)


def _full(connection: Connection) -> dict[str, frozenset[str]]:
    has_one = and_(TENANTS.c.limits.like('%"connections":%'), TENANTS.c.limits.not_like('%"connections":null%'))
    found = {}
    for tenant, limits in connection.execute(select(TENANTS.c.id, TENANTS.c.limits).where(has_one)).all():
        most = Limits.model_validate_json(limits).connections
        # Who is connected is online, and of those there is an index.
        here = and_(PRESENCE.c.tenant == tenant, PRESENCE.c.online.is_(True), PRESENCE.c.connected)
        first = select(PRESENCE.c.device).where(here).order_by(PRESENCE.c.since_ns, PRESENCE.c.device).limit(most)
        staying = frozenset(connection.execute(first).scalars())
        if most is not None and len(staying) >= most:
            found[tenant] = staying
    return found


def _revision(connection: Connection) -> int:
    return int(connection.execute(select(COUNTERS.c.value).where(COUNTERS.c.name == "revision")).scalar_one())


def _read_identities(connection: Connection, ids: Sequence[str], found: dict[str, DeviceIdentity]) -> None:
    for row in connection.execute(select(DEVICES).where(DEVICES.c.id.in_(ids))).mappings():
        found[row["id"]] = DeviceIdentity(
            id=row["id"],
            tenant=row["tenant"],
            state=row["state"],
            type=row["type"],
            gateway=row["gateway"],
            tags=orjson.loads(row["tags"]),
            created_ns=row["created_ns"],
            rate_limit=own_limit(orjson.loads(row["attributes"])),
        )
    _read_relations(connection, ids, found)
    owned = select(CREDENTIALS).select_from(CREDENTIALS.join(DEVICES, _OWNS)).where(DEVICES.c.id.in_(ids))
    for row in connection.execute(owned.order_by(CREDENTIALS.c.created_ns)).mappings():
        names = ("id", "sha256", "not_before_ns", "not_after_ns")
        kind: Literal["secret", "x509"] = "x509" if row["broker_hash"] == CERTIFICATE else "secret"
        record = CredentialRecord(**{name: row[name] for name in names}, kind=kind)
        found[row["device"]].credentials.append(record)


def _read_tenants(connection: Connection, ids: AbstractSet[str]) -> tuple[set[str], dict[str, str | None]]:
    """Give which of some tenants may do nothing now, and the rate limit of each."""
    query = select(TENANTS.c.id, TENANTS.c.state, TENANTS.c.limits).where(TENANTS.c.id.in_(ids))
    rows = connection.execute(query).all()
    idle = {id_ for id_, state, _ in rows if state != "active"}
    return idle, {id_: Limits.model_validate_json(limits).rate_limit for id_, _, limits in rows}


def _read_types(connection: Connection, worn: AbstractSet[tuple[str, str]]) -> dict[str, DeviceType]:
    query = select_types().where(DEVICE_TYPES.c.name.in_({name for _, name in worn}))
    rows = connection.execute(query).mappings()
    return {type_key(row["tenant"], row["name"]): to_type(row) for row in rows if (row["tenant"], row["name"]) in worn}


def _read_relations(connection: Connection, ids: Sequence[str], found: dict[str, DeviceIdentity]) -> None:
    parents = select(CHILDREN.c.device, CHILDREN.c.gateway).where(CHILDREN.c.device.in_(ids))
    for device, gateway in connection.execute(parents):
        found[device].parent = gateway
    for device, name in connection.execute(select(NAMES.c.device, NAMES.c.name).where(NAMES.c.device.in_(ids))):
        found[device].names.append(name)
    rules = select(GATEWAYS.c.device, GATEWAYS.c.rules).where(GATEWAYS.c.device.in_(ids))
    for device, text in connection.execute(rules):
        found[device].prefixes = orjson.loads(text)["prefixes"]
