"""The rules of enrolment: who may register itself, and what it then is. Knows no HTTP and no SQL."""

from __future__ import annotations

import secrets
from base64 import b64encode
from typing import Protocol

from chassis.guessing import FREE_FAILURES, BackOff
from chassis.tokens import hash_token, is_same, new_token
from devices import credentials
from devices.enrolment.rows import Arrival, EnrolmentRow
from devices.enrolment.seal import Seal
from devices.metrics import ENROLLED, ENROLMENT_FAILURES
from devices.rows import CredentialRow, NewDevice, Who
from wire import clock
from wire.clock import NS_PER_S
from wire.devices import parse_bearer
from wire.enrolment import (
    WILD,
    EnrolAnswer,
    EnrolmentCreate,
    EnrolmentCreated,
    EnrolmentView,
    EnrolRequest,
    Terms,
    fits,
)
from wire.errors import Conflict, Forbidden, NotFound, Unauthorized, Unprocessable
from wire.group_keys import KEY_BYTES, derive_key, may_be_derived, read_key
from wire.registry import CredentialCreate

WRONG_WAITS = "too many wrong enrolment secrets from this address, wait"
RECLAIM_S = 900  # how long a device whose answer was lost may come again with its nonce
MADE_CHARS = 12  # of an id that is given: 48 random bits


class EnrolmentRows(Protocol):
    """Where ways in are kept; see `devices.enrolment.store.EnrolmentStore`."""

    def of_tenant(self, tenant: str) -> list[EnrolmentRow]: ...
    def find_token(self, sha256: str) -> EnrolmentRow | None: ...
    def groups(self) -> list[EnrolmentRow]: ...
    def add(self, new: EnrolmentRow, who: Who) -> None: ...
    def remove(self, tenant: str, id_or_name: str, who: Who) -> None: ...
    def enrol(self, enrolment_id: str, arrival: Arrival) -> None: ...
    def enrolled_before(self, tenant: str, source: str, nonce: str, since_ns: int) -> str | None: ...
    def renew(self, tenant: str, new: CredentialRow, who: Who) -> None: ...


class Enrolments:
    """The ways in, for operators; thread-safe."""

    def __init__(self, rows: EnrolmentRows, seal: Seal) -> None:
        self._rows = rows
        self._seal = seal

    def list(self, tenant: str) -> list[EnrolmentView]:
        """List a tenant's ways in."""
        now_ns = clock.now_ns()
        return [row.view(now_ns) for row in self._rows.of_tenant(tenant)]

    def create(self, tenant: str, wanted: EnrolmentCreate, who: Who) -> EnrolmentCreated:
        """Make a way in; its secret is answered once.

        Raises:
            Conflict: the name is taken.
            Unprocessable: it would be over already.
            Unavailable: a group's key cannot be sealed.
        """
        now_ns, row_id = clock.now_ns(), "e" + secrets.token_hex(8)
        if wanted.expires is not None and wanted.expires <= now_ns:
            raise Unprocessable("expires must be later than now", fields=["expires"])
        terms = Terms(**wanted.model_dump(include=set(Terms.model_fields)))
        if wanted.kind == "token":
            most: int | None = wanted.max_devices or 1
            secret = new_token()
            stored = hash_token(secret)
        else:
            key = read_key(wanted.key) if wanted.key else secrets.token_bytes(KEY_BYTES)
            secret, most = b64encode(key).decode(), wanted.max_devices
            stored = self._seal.close(key, row_id)
        row = EnrolmentRow(row_id, tenant, wanted.name, wanted.kind, stored, terms, most, now_ns, wanted.expires)
        self._rows.add(row, who)
        return EnrolmentCreated(**dict(row.view(now_ns)), secret=secret)

    def revoke(self, tenant: str, id_or_name: str, who: Who) -> None:
        """Close a way in; the devices that came by it stay.

        Raises:
            NotFound: no such way in.
        """
        self._rows.remove(tenant, id_or_name.replace("\0", ""), who)


class Door:
    """Where devices that are not registered yet present themselves; thread-safe."""

    def __init__(self, rows: EnrolmentRows, seal: Seal, back_off: BackOff | None = None) -> None:
        self._rows = rows
        self._seal = seal
        self._back_off = back_off or BackOff(WRONG_WAITS, "enrolment_back_off")

    def enrol(self, presented: str, asked: EnrolRequest, remote_ip: str, *, named: str | None = None) -> EnrolAnswer:
        """Register a device by a token, or by `{id}.{key derived from a group's}`.

        With `named` only by the token of that name or id.

        Raises:
            Unauthorized: neither a token nor a derived key.
            TooManyRequests: too many wrong ones from this address.
            Forbidden: the way in is over, or not for this id.
            Conflict: the id is taken.
        """
        token = self._rows.find_token(hash_token(presented))
        if token is not None and named in (None, token.name, token.id):
            return self._by_token(token, asked, remote_ip)
        device_id, secret = (parse_bearer(presented) if named is None else None) or ("", "")
        group = self._group_of(device_id, hash_token(secret)) if may_be_derived(secret) else None
        if group is None:
            self._count_wrong(remote_ip)
            raise Unauthorized("no enrolment has this secret")
        if asked.id not in (None, device_id):
            raise Forbidden(f"the key is of {device_id}, not of {asked.id}", code="identity_mismatch")
        self._by_group(group, device_id, asked, remote_ip)
        return _answer(device_id, group.terms)

    def admit(self, device_id: str, sha256: str, remote_ip: str) -> bool:
        """Register a device nobody knows, when the hash it presents is that of its key from a group."""
        group = self._group_of(device_id, sha256)
        if group is None:
            ENROLMENT_FAILURES.inc()
            return False
        try:
            self._by_group(group, device_id, EnrolRequest(), remote_ip)
        except Conflict as error:
            return error.code == "device_exists"  # it came by two connections at once
        except (Forbidden, NotFound):
            return False
        return True

    def _by_token(self, token: EnrolmentRow, asked: EnrolRequest, remote_ip: str) -> EnrolAnswer:
        who, nonce = Who(token.source, remote_ip, token.tenant), hash_token(asked.nonce) if asked.nonce else None
        now_ns = clock.now_ns()
        before = nonce and self._rows.enrolled_before(token.tenant, token.source, nonce, now_ns - RECLAIM_S * NS_PER_S)
        if before and asked.id in (None, before):
            issued, row = credentials.issue(before, now_ns, CredentialCreate())
            self._rows.renew(token.tenant, row, who)
            return _answer(before, token.terms).model_copy(update={"credential": issued})
        device_id = asked.id or _make_id(token.terms)
        issued, row = credentials.issue(device_id, now_ns, CredentialCreate())
        self._register(token, row, asked, who, nonce)
        return _answer(device_id, token.terms).model_copy(update={"credential": issued})

    def _by_group(self, group: EnrolmentRow, device_id: str, asked: EnrolRequest, remote_ip: str) -> None:
        key = derive_key(self._seal.open(group.secret, group.id), device_id)
        row = credentials.adopt(device_id, key, clock.now_ns())
        self._register(group, row, asked, Who(group.source, remote_ip, group.tenant), None)

    def _register(
        self, way: EnrolmentRow, row: CredentialRow, asked: EnrolRequest, who: Who, nonce: str | None
    ) -> None:
        terms = way.terms
        if not fits(terms.ids, row.device):
            raise Forbidden(f"enrolment {way.name} is for ids like {terms.ids}", code="id_not_allowed")
        device = NewDevice(row.device, terms.type, terms.tags, gateway=False, credential=row, state=_state(terms))
        self._rows.enrol(way.id, Arrival(device, way.tenant, way.source, who, nonce, dict(asked.hardware), terms.group))
        ENROLLED.labels(way.kind).inc()

    def _group_of(self, device_id: str, sha256: str) -> EnrolmentRow | None:
        now_ns = clock.now_ns()
        for group in self._rows.groups():
            if group.state(now_ns) == "expired" or not fits(group.terms.ids, device_id):
                continue
            key = self._seal.open(group.secret, group.id)
            if is_same(sha256, hash_token(derive_key(key, device_id))):
                return group
        return None

    def _count_wrong(self, remote_ip: str) -> None:
        """Slow guessing down; see BackOff.wrong."""
        ENROLMENT_FAILURES.inc()
        self._back_off.wrong({("", remote_ip): FREE_FAILURES})


def _state(terms: Terms) -> str:
    return "held" if terms.policy == "hold" else "active"


def _answer(device_id: str, terms: Terms) -> EnrolAnswer:
    state = "held" if terms.policy == "hold" else "registered"
    return EnrolAnswer(id=device_id, state=state, type=terms.type, tags=terms.tags, credential=None)


def _make_id(terms: Terms) -> str:
    return terms.ids.replace(WILD, secrets.token_hex(MADE_CHARS // 2))
