"""Authorities and certificates: the only SQL about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, delete, exists, func, insert, or_, select, update

from devices.database.engine import Database, Write
from devices.database.tables import CREDENTIALS, DEVICES, TENANTS
from devices.database.tables_enrolment import AUTHORITIES, CERTIFICATES
from devices.enrolment.rows import Arrival
from devices.enrolment.store import demand_group, register
from devices.rows import CredentialRow, Deed, Who
from devices.store import insert_credential
from wire.certificates import CertificateWaiting
from wire.enrolment import Terms
from wire.errors import Conflict, NotFound

MAX_AUTHORITIES = 100  # of one tenant


@dataclass(slots=True, frozen=True)
class AuthorityRow:
    """An authority as stored."""

    id: str
    tenant: str
    name: str
    certificate: str
    key: str | None  # of our own, sealed
    terms: Terms
    id_from: str
    challenge: str | None
    created_ns: int

    @property
    def is_own(self) -> bool:
        """Tell whether we hold its key."""
        return self.key is not None


@dataclass(slots=True, frozen=True)
class CertificateRow:
    """A certificate that is a device's credential, or was."""

    fingerprint: str
    authority: str
    tenant: str
    device: str
    serial: str
    end_ns: int


class AuthorityStore:
    """Authorities and certificates; thread-safe. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of_tenant(self, tenant: str) -> list[AuthorityRow]:
        """Give a tenant's authorities and our own, in order of their names."""
        return self._read(or_(AUTHORITIES.c.tenant == tenant, AUTHORITIES.c.key.is_not(None)))

    def own(self) -> list[AuthorityRow]:
        """Give our own authorities, the oldest first; an installation has one for all tenants, two while it changes."""
        return sorted(self._read(AUTHORITIES.c.key.is_not(None)), key=lambda row: row.created_ns)

    def proved(self) -> list[AuthorityRow]:
        """Give the customers' authorities whose owner has proved to hold the key."""
        return self._read(and_(AUTHORITIES.c.key.is_(None), AUTHORITIES.c.challenge.is_(None)))

    def add(self, new: AuthorityRow, who: Who, *, renews: bool = False) -> None:
        """Add an authority; one of our own stands beside another only when it renews it.

        Raises:
            Conflict: the name is taken, there is one of our own already, or there are too many.
        """
        with self._database.write() as transaction:
            mine = select(AUTHORITIES.c.name).where(AUTHORITIES.c.tenant == new.tenant)
            names = transaction.execute(mine).scalars().all()
            own = select(AUTHORITIES.c.id).where(AUTHORITIES.c.key.is_not(None))
            has_own = new.is_own and not renews and transaction.execute(own).first() is not None
            if new.name in names or has_own or len(names) >= MAX_AUTHORITIES:
                what = "an authority of our own exists" if has_own else f"authority {new.name} exists, or too many do"
                raise Conflict(what, code="authority_exists", fields=["name"])
            demand_group(transaction, new.tenant, new.terms.group)
            names_of = ("id", "tenant", "name", "certificate", "key", "id_from", "challenge", "created_ns")
            values = {name: getattr(new, name) for name in names_of} | {"terms": new.terms.model_dump_json()}
            transaction.execute(insert(AUTHORITIES).values(**values))
            transaction.changed("authority", [new.name])
            transaction.audit([Deed(who, "authority.create", new.name, {"is_own": new.is_own})])

    def prove(self, tenant: str, name: str, who: Who) -> None:
        """Note that an authority's owner holds its key."""
        named = and_(AUTHORITIES.c.tenant == tenant, AUTHORITIES.c.name == name)
        with self._database.write() as transaction:
            transaction.execute(update(AUTHORITIES).where(named).values(challenge=None))
            transaction.audit([Deed(who, "authority.prove", name)])

    def remove(self, tenant: str, name: str, who: Who) -> None:
        """Forget a customer's authority, and take the certificates it signed from their devices.

        Raises:
            NotFound: no such authority, or it is our own.
        """
        named = and_(AUTHORITIES.c.tenant == tenant, AUTHORITIES.c.name == name, AUTHORITIES.c.key.is_(None))
        with self._database.write() as transaction:
            authority = transaction.execute(select(AUTHORITIES.c.id).where(named)).scalar()
            if authority is None:
                raise NotFound(f"no authority {name!r}", code="authority_not_found")
            signed = CERTIFICATES.c.authority == authority
            devices = transaction.execute(select(CERTIFICATES.c.device).where(signed).distinct()).scalars().all()
            its = CREDENTIALS.c.sha256.in_(select(CERTIFICATES.c.fingerprint).where(signed))
            transaction.execute(delete(CREDENTIALS).where(its))
            transaction.execute(delete(AUTHORITIES).where(named))
            transaction.changed("device", devices)
            transaction.audit([Deed(who, "authority.remove", name)])

    def add_certificate(self, row: CertificateRow, credential: CredentialRow, who: Who) -> None:
        """Make a certificate a credential of a device.

        Raises:
            NotFound: no such device.
            Conflict: it has too many credentials, or is retired.
        """
        with self._database.write() as transaction:
            insert_credential(transaction, row.tenant, credential)
            _insert(transaction, row)
            detail = {"credential": credential.id, "serial": row.serial}
            transaction.audit([Deed(who, "certificate.add", row.device, detail)])

    def enrol(self, row: CertificateRow, arrival: Arrival) -> None:
        """Register a device by the certificate it came with.

        Raises:
            Conflict: the id is taken.
        """
        with self._database.write() as transaction:
            register(transaction, arrival)
            _insert(transaction, row)

    def find(self, fingerprint: str) -> tuple[str, bool] | None:
        """Give whose a certificate is, and whether it is still a credential."""
        is_live = exists().where(CREDENTIALS.c.sha256 == CERTIFICATES.c.fingerprint)
        query = select(CERTIFICATES.c.device, is_live).where(CERTIFICATES.c.fingerprint == fingerprint)
        with self._database.read() as connection:
            row = connection.execute(query).first()
        return None if row is None else (row[0], bool(row[1]))

    def waiting(self, tenant: str, own: Sequence[str], now_ns: int, page: tuple[str, int]) -> list[CertificateWaiting]:
        """Give devices with a certificate of an older authority and none of the newest, and when its last one ends.

        Args:
            tenant: whose devices.
            own: ids of our authorities, the newest last.
            now_ns: certificates that ended before do not count.
            page: the device after which to begin, and how many.
        """
        columns = CREDENTIALS.c
        lasting = and_(
            or_(columns.not_after_ns.is_(None), columns.not_after_ns > now_ns), CERTIFICATES.c.end_ns > now_ns
        )
        held = CREDENTIALS.join(CERTIFICATES, columns.sha256 == CERTIFICATES.c.fingerprint)
        mine = and_(columns.tenant == tenant, lasting)
        newest = CERTIFICATES.c.authority == own[-1]
        switched = select(columns.device).select_from(held).where(mine, newest)
        query = select(columns.device, func.max(CERTIFICATES.c.end_ns).label("expires")).select_from(held)
        query = query.where(mine, CERTIFICATES.c.authority.in_(own[:-1]), columns.device.not_in(switched))
        query = query.where(columns.device > page[0]).group_by(columns.device).order_by(columns.device).limit(page[1])
        with self._database.read() as connection:
            return [CertificateWaiting.model_validate(dict(row)) for row in connection.execute(query).mappings()]

    def tenant_of(self, device_id: str) -> str | None:
        """Give the tenant of a device."""
        with self._database.read() as connection:
            return connection.execute(select(DEVICES.c.tenant).where(DEVICES.c.id == device_id)).scalar()

    def revoked(self, authority: str, now_ns: int) -> list[tuple[str, str]]:
        """Give serials and devices of the certificates that are no live credential of a device in service."""
        admitted = DEVICES.c.state.in_(("active", "held"))
        of_device = and_(DEVICES.c.tenant == CREDENTIALS.c.tenant, DEVICES.c.id == CREDENTIALS.c.device, admitted)
        begun = or_(CREDENTIALS.c.not_before_ns.is_(None), CREDENTIALS.c.not_before_ns <= now_ns)
        lasting = or_(CREDENTIALS.c.not_after_ns.is_(None), CREDENTIALS.c.not_after_ns > now_ns)
        suspended = select(TENANTS.c.id).where(TENANTS.c.state != "active")
        live = select(CREDENTIALS.c.sha256).join(DEVICES, of_device).where(begun, lasting)
        live = live.where(DEVICES.c.tenant.not_in(suspended))
        mine = and_(CERTIFICATES.c.authority == authority, CERTIFICATES.c.end_ns > now_ns)
        query = select(CERTIFICATES.c.serial, CERTIFICATES.c.device).where(
            mine, CERTIFICATES.c.fingerprint.not_in(live)
        )
        with self._database.read() as connection:
            return [tuple(row) for row in connection.execute(query.order_by(CERTIFICATES.c.serial))]

    def _read(self, condition: Any) -> list[AuthorityRow]:
        query = select(AUTHORITIES).where(condition).order_by(AUTHORITIES.c.name)
        with self._database.read() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
        return [AuthorityRow(terms=Terms.model_validate_json(row.pop("terms")), **row) for row in rows]


def _insert(transaction: Write, row: CertificateRow) -> None:
    names = CertificateRow.__dataclass_fields__
    transaction.execute(insert(CERTIFICATES).values(**{name: getattr(row, name) for name in names}))
