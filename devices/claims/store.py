"""Topic claims: the only SQL about them. Thread-safe; each method is one transaction.

Two claims never have a topic in common, in the whole installation: else a subscriber could not tell who published.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, delete, func, insert, or_, select

from devices.database.engine import Database, Write
from devices.database.tables import DEVICES, TENANTS
from devices.database.tables_claims import CLAIMS
from devices.rows import Deed, Who
from wire.claims import Claim, ClaimView, NewClaim, stands_alone
from wire.errors import Conflict, NotFound
from wire.filters import overlap

MAX_OF_DEVICE = 16
MAX_IN_ALL = 20_000  # lines of the broker's access list, through which it goes for each client when it reads it again
MAX_ALONE = 200  # claims outside their protocol's family: each is a subscription of its own
_WITH_RIGHTS = and_(
    CLAIMS.c.tenant == DEVICES.c.tenant, CLAIMS.c.device == DEVICES.c.id, DEVICES.c.state.in_(("active", "held"))
)
_SUSPENDED = select(TENANTS.c.id).where(TENANTS.c.state != "active")
_CLAIM = select(CLAIMS.c.filter, CLAIMS.c.protocol, CLAIMS.c.device).order_by(CLAIMS.c.filter)


class ClaimStore:
    """Claims of topics."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, tenant: str, device: str) -> list[ClaimView]:
        """List a device's claims in order of their filters.

        Raises:
            NotFound: no such device.
        """
        with self._database.read() as connection:
            _demand_device(connection, tenant, device)
            rows = connection.execute(select(CLAIMS).where(_of(tenant, device)).order_by(CLAIMS.c.filter))
            return [_to_view(row) for row in rows.mappings()]

    def page(self, tenant: str, after: str, limit: int) -> list[ClaimView]:
        """List a tenant's claims in order of their filters."""
        mine = and_(CLAIMS.c.tenant == tenant, CLAIMS.c.filter > after)
        with self._database.look() as connection:
            rows = connection.execute(select(CLAIMS).where(mine).order_by(CLAIMS.c.filter).limit(limit))
            return [_to_view(row) for row in rows.mappings()]

    def add(self, tenant: str, device: str, claim: NewClaim, who: Who) -> ClaimView:
        """Let a device have topics to itself from now on.

        Raises:
            NotFound: no such device.
            Conflict: they are taken, or there are as many claims as may be.
        """
        with self._database.write() as transaction:
            _demand_device(transaction, tenant, device)
            _demand_free(transaction, tenant, device, claim.filter)
            _demand_room(transaction, tenant, device, claim)
            row: dict[str, Any] = {"tenant": tenant, "device": device, "since_ns": transaction.now_ns}
            row |= claim.model_dump() | _levels(claim.filter)
            transaction.execute(insert(CLAIMS).values(**row))
            transaction.changed("topic", [device])
            transaction.audit([Deed(who, "topic.claim", device, claim.model_dump())])
            return _to_view(row)

    def remove(self, tenant: str, device: str, topics: str, who: Who) -> None:
        """Take topics away from a device.

        Raises:
            NotFound: no such device, or it does not claim them.
        """
        with self._database.write() as transaction:
            _demand_device(transaction, tenant, device)
            gone = transaction.execute(delete(CLAIMS).where(_of(tenant, device), CLAIMS.c.filter == topics))
            if not gone.rowcount:
                raise NotFound(f"{device} does not claim {topics[:80]!r}", code="claim_not_found")
            transaction.changed("topic", [device])
            transaction.audit([Deed(who, "topic.release", device, {"filter": topics})])

    def every(self) -> list[Claim]:
        """Give all claims of the installation, in order of their filters, whatever the state of their devices."""
        with self._database.look() as connection:
            return [Claim(*row) for row in connection.execute(_CLAIM)]

    def in_force(self, device: str | None = None) -> list[Claim]:
        """Give the claims of devices that may use the broker, or of one of them, in order of their filters."""
        query = _CLAIM.where(_WITH_RIGHTS, DEVICES.c.tenant.not_in(_SUSPENDED))
        with self._database.look() as connection:
            rows = connection.execute(query if device is None else query.where(CLAIMS.c.device == device))
            return [Claim(*row) for row in rows]


def _demand_device(connection: Any, tenant: str, device: str) -> None:
    query = select(DEVICES.c.id).where(DEVICES.c.tenant == tenant, DEVICES.c.id == device)
    if connection.execute(query).first() is None:
        raise NotFound(f"no device {device[:80]!r}", code="device_not_found")


def _demand_free(transaction: Write, tenant: str, device: str, wanted: str) -> None:
    levels = _levels(wanted)
    near = CLAIMS.c.root == levels["root"]
    if levels["branch"] is not None:
        near = and_(near, or_(CLAIMS.c.branch.is_(None), CLAIMS.c.branch == levels["branch"]))
    for other, whose, holder in transaction.execute(
        select(CLAIMS.c.filter, CLAIMS.c.tenant, CLAIMS.c.device).where(near)
    ):
        if not overlap(wanted, other):
            continue
        if whose != tenant:  # not even by whom: another tenant's devices are none of the asker's business
            raise Conflict("topics of this filter are taken", code="topic_taken")
        owner = "the device itself" if holder == device else holder
        raise Conflict(f"topics of this filter are taken by {owner}, with {other}", code="topic_taken")


def _demand_room(transaction: Write, tenant: str, device: str, claim: NewClaim) -> None:
    count = select(func.count()).select_from(CLAIMS)
    if transaction.execute(count.where(_of(tenant, device))).scalar_one() >= MAX_OF_DEVICE:
        raise Conflict(f"{device} has {MAX_OF_DEVICE} claims, as many as it may", code="too_many_claims")
    if transaction.execute(count).scalar_one() >= MAX_IN_ALL:
        raise Conflict(f"the installation has {MAX_IN_ALL} claims, as many as it may", code="too_many_claims")
    if stands_alone(Claim(claim.filter, claim.protocol, device)) and _count_alone(transaction) >= MAX_ALONE:
        text = f"the installation has {MAX_ALONE} claims outside the usual topics of their protocols, as many as it may"
        raise Conflict(text, code="too_many_claims")


def _count_alone(transaction: Write) -> int:
    return sum(stands_alone(Claim(*row)) for row in transaction.execute(_CLAIM))


def _levels(topics: str) -> dict[str, str | None]:
    root, _, rest = topics.partition("/")
    branch = rest.partition("/")[0]
    return {"root": root, "branch": None if branch in ("", "+", "#") else branch}


def _of(tenant: str, device: str) -> Any:
    return and_(CLAIMS.c.tenant == tenant, CLAIMS.c.device == device)


def _to_view(row: Any) -> ClaimView:
    return ClaimView(device=row["device"], filter=row["filter"], protocol=row["protocol"], since=row["since_ns"])
