"""The rules of certificates: whose they are, who may have them. Knows no HTTP and no SQL.

A certificate is a credential of its device, known by its fingerprint: it is listed, revoked, counted and timed like a
secret. What is no live credential of a device in service is on the revocation list.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from devices.credentials import CERTIFICATE
from devices.enrolment.rows import Arrival
from devices.enrolment.seal import Seal
from devices.metrics import ENROLLED
from devices.rows import CredentialRow, NewDevice, Who
from devices.x509.store import AuthorityRow, CertificateRow
from wire import clock
from wire.certificates import (
    AuthorityCreate,
    AuthorityView,
    CertificateIssued,
    CertificateRequest,
    CertificateWaiting,
)
from wire.devices import TENANT, allows
from wire.enrolment import Terms, fits
from wire.errors import Conflict, Forbidden, NotFound, Unprocessable
from wire.topics import is_device_id

if TYPE_CHECKING:
    from devices.x509.pki import Presented

CHALLENGE_BYTES = 16
DAY_NS = 86_400 * clock.NS_PER_S
MAX_BASE = 56  # of a name to which a number is put
NONE_YET = "there is no authority of our own yet: headwater ca init"
MAX_CN = 64  # RFC 5280, ub-common-name


class AuthorityRows(Protocol):
    """Where authorities are kept; see `devices.x509.store.AuthorityStore`."""

    def of_tenant(self, tenant: str) -> list[AuthorityRow]: ...
    def own(self) -> list[AuthorityRow]: ...
    def waiting(
        self, tenant: str, own: Sequence[str], now_ns: int, page: tuple[str, int]
    ) -> list[CertificateWaiting]: ...
    def proved(self) -> list[AuthorityRow]: ...
    def add(self, new: AuthorityRow, who: Who, *, renews: bool = False) -> None: ...
    def prove(self, tenant: str, name: str, who: Who) -> None: ...
    def remove(self, tenant: str, name: str, who: Who) -> None: ...
    def add_certificate(self, row: CertificateRow, credential: CredentialRow, who: Who) -> None: ...
    def enrol(self, row: CertificateRow, arrival: Arrival) -> None: ...
    def find(self, fingerprint: str) -> tuple[str, bool] | None: ...
    def tenant_of(self, device_id: str) -> str | None: ...
    def revoked(self, authority: str, now_ns: int) -> list[tuple[str, str]]: ...


class Authorities:
    """Authorities and what they sign; thread-safe."""

    def __init__(self, rows: AuthorityRows, seal: Seal) -> None:
        self._rows = rows
        self._seal = seal

    def of_tenant(self, tenant: str) -> list[AuthorityView]:
        """List a tenant's authorities, and our own."""
        return [_view(row) for row in self._rows.of_tenant(tenant)]

    def create(self, tenant: str, wanted: AuthorityCreate, who: Who) -> AuthorityView:
        """Make our own authority, or take in a customer's, which is trusted once its owner has proved to hold its key.

        Raises:
            Conflict: the name is taken, or there is one of our own already.
            Forbidden: our own is for the platform's administrator to make.
            NotFound: no such group.
            Unprocessable: the certificate is none of an authority.
            Unavailable: our key cannot be sealed.
        """
        from devices.x509 import pki

        if wanted.certificate is None and not allows(who.role, "platform"):
            raise Forbidden("the authority of our own is made by the platform's administrator")
        row_id, key, certificate, challenge = "a" + secrets.token_hex(8), None, wanted.certificate, None
        if certificate is None:
            certificate, private = pki.make_authority(f"Headwater {wanted.name}")
            key = self._seal.close(private, row_id)
        else:
            if not pki.is_authority(pki.read(certificate)):
                raise Unprocessable("not the certificate of an authority (CA:TRUE)", code="bad_certificate")
            challenge = secrets.token_hex(CHALLENGE_BYTES)
        terms = Terms(**wanted.model_dump(include=set(Terms.model_fields)))
        now_ns = clock.now_ns()
        row = AuthorityRow(row_id, tenant, wanted.name, certificate, key, terms, wanted.id_from, challenge, now_ns)
        self._rows.add(row, who)
        return _view(row)

    def renew(self, who: Who) -> AuthorityView:
        """Make a new authority of our own beside the old one: both are trusted until the old one ends.

        It signs devices' certificates from now on, and listeners' when the old one lasts too short for them.

        Raises:
            Forbidden: this is for the platform's administrator.
            NotFound: no authority of our own yet.
            Conflict: two of our own are trusted already.
            Unavailable: its key cannot be sealed.
        """
        from devices.x509 import pki

        if not allows(who.role, "platform"):
            raise Forbidden("the authority of our own is renewed by the platform's administrator")
        every, lasting = self._rows.own(), self._lasting()
        if not every:
            raise NotFound(NONE_YET, code="authority_not_found")
        if len(lasting) > 1:
            raise Conflict("two authorities of our own are trusted already", code="authority_exists")
        row_id, name = "a" + secrets.token_hex(8), f"{every[0].name[:MAX_BASE]}-{len(every) + 1}"
        certificate, private = pki.make_authority(f"Headwater {name}")
        key, terms = self._seal.close(private, row_id), every[0].terms
        row = AuthorityRow(
            row_id, every[0].tenant, name, certificate, key, terms, every[0].id_from, None, clock.now_ns()
        )
        self._rows.add(row, who, renews=True)
        return _view(row)

    def waiting(self, tenant: str, after: str, limit: int) -> list[CertificateWaiting]:
        """Give devices that have certificates of our older authorities only, in order of their ids."""
        own = [row.id for row in self._rows.own()]
        return self._rows.waiting(tenant, own, clock.now_ns(), (after, limit)) if own else []

    def bundle(self) -> str:
        """Give the certificates of our own authorities that are trusted, the newest first."""
        return "".join(row.certificate for row in reversed(self._lasting()))

    def prove(self, tenant: str, name: str, proof_pem: str, who: Who) -> None:
        """Trust a customer's authority from now on, when the proof is signed by it and says its challenge.

        Raises:
            NotFound: no such authority.
            Forbidden: the proof is none.
        """
        from devices.x509 import pki

        row = self._find(tenant, name)
        proof = pki.read(proof_pem)
        said = proof.name("CN")
        if row.challenge is None or said != row.challenge or not pki.is_signed_by(proof, row.certificate):
            raise Forbidden("the proof is a certificate with the challenge as CN, signed by it", code="not_proved")
        self._rows.prove(tenant, name, who)

    def remove(self, tenant: str, name: str, who: Who) -> None:
        """Trust a customer's authority no more; the certificates it signed are no credentials any more.

        Raises:
            NotFound: no such authority, or it is our own.
        """
        self._rows.remove(tenant, name.replace("\0", ""), who)

    def sign(self, tenant: str, device_id: str, wanted: CertificateRequest, who: Who) -> CertificateIssued:
        """Sign a device's request; the certificate is a credential of it at once.

        Raises:
            NotFound: no such device, or no authority of our own yet.
            Conflict: it has too many credentials, is retired, or our authority is over.
            Unprocessable: the request.
        """
        from devices.x509 import pki

        if not is_device_id(device_id) or self._rows.tenant_of(device_id) != tenant:
            raise NotFound(f"no device {device_id[:80]!r}", code="device_not_found")
        own = self._own()
        certificate = pki.sign(self._opened(own), wanted.csr, device_id, wanted.days)
        made = pki.read(certificate)
        credential = _credential(device_id, made.fingerprint, made.start_ns, made.end_ns)
        row = CertificateRow(made.fingerprint, own.id, tenant, device_id, made.serial, made.end_ns)
        self._rows.add_certificate(row, credential, who)
        return CertificateIssued(
            credential=credential.id,
            certificate=certificate,
            authority=self.bundle(),
            fingerprint=made.fingerprint,
            serial=made.serial,
            expires=made.end_ns,
        )

    def ensure_own(self, days: int) -> str:
        """Make our own authority where there is none; give the certificate of that which signs listeners now."""
        if not self._rows.own():
            with suppress(Conflict):  # made by somebody else at the same time
                self.create(TENANT, AuthorityCreate(name="own"), Who("system", "", TENANT, "platform"))
        return self._for_listeners(days).certificate

    def sign_server(self, csr: str, hosts: Sequence[str], days: int) -> CertificateIssued:
        """Sign the request of a listener, for names and addresses of which the first becomes CN.

        Raises:
            NotFound: no authority of our own yet.
            Conflict: it is over.
            Unprocessable: the request.
        """
        from devices.x509 import pki

        opened = self._opened(self._for_listeners(days))
        certificate = pki.sign(opened, csr, hosts[0][:MAX_CN], days, hosts)
        made = pki.read(certificate)
        return CertificateIssued(
            credential=None,
            certificate=certificate,
            authority=self.bundle(),
            fingerprint=made.fingerprint,
            serial=made.serial,
            expires=made.end_ns,
        )

    def revocations(self, number: int) -> tuple[str, str, list[tuple[str, str]]] | None:
        """Give our own certificates, their revocation lists of this number, and serials and devices on them."""
        from devices.x509 import pki

        lists, every, now_ns = [], [], clock.now_ns()
        for own in reversed(self._lasting()):
            revoked = self._rows.revoked(own.id, now_ns)
            lists.append(pki.make_list(self._opened(own), [serial for serial, _ in revoked], number))
            every += revoked
        return (self.bundle(), "".join(lists), every) if lists else None

    def revoked(self) -> tuple[str, dict[str, str]] | None:
        """Give our own certificates, and what is on their revocation lists: devices by serial; None without any."""
        lasting, now_ns = self._lasting(), clock.now_ns()
        every = [each for own in lasting for each in self._rows.revoked(own.id, now_ns)]
        return (self.bundle(), dict(every)) if lasting else None

    def resolve(self, certificate_pem: str, remote_ip: str) -> str | None:
        """Tell whose a certificate is; one that a customer's authority signed registers its device at first sight.

        Whoever shows it has proved to hold its key: the gateway's TLS sees to that.
        """
        from devices.x509 import pki

        try:
            shown = pki.read(certificate_pem)
        except Unprocessable:
            return None
        known = self._rows.find(shown.fingerprint)
        if known is not None:
            return known[0] if known[1] else None
        authority, end_ns = self._signer(shown)
        device_id = "" if authority is None else shown.name(authority.id_from) or ""
        if authority is None or not is_device_id(device_id) or not fits(authority.terms.ids, device_id):
            return None
        row = CertificateRow(shown.fingerprint, authority.id, authority.tenant, device_id, shown.serial, end_ns)
        credential = _credential(device_id, shown.fingerprint, shown.start_ns, end_ns)
        return device_id if self._take_in(authority, row, credential, remote_ip) else None

    def _signer(self, shown: Presented) -> tuple[AuthorityRow | None, int]:
        """Give the customer's authority that signed a certificate, and when the first of the two ends."""
        from devices.x509 import pki

        now_ns = clock.now_ns()
        if not shown.start_ns <= now_ns < shown.end_ns or pki.is_authority(shown):
            return None, 0
        for authority in self._rows.proved():
            own = pki.read(authority.certificate)
            if own.start_ns <= now_ns < own.end_ns and pki.is_signed_by(shown, authority.certificate):
                return authority, min(shown.end_ns, own.end_ns)
        return None, 0

    def _take_in(self, authority: AuthorityRow, row: CertificateRow, credential: CredentialRow, remote_ip: str) -> bool:
        terms, source = authority.terms, f"authority:{authority.name}"
        who = Who(source, remote_ip, authority.tenant)
        state = "held" if terms.policy == "hold" else "active"
        try:
            if self._rows.tenant_of(row.device) is not None:
                return self._join(authority, row, credential, who)
            device = NewDevice(row.device, terms.type, terms.tags, gateway=False, credential=credential, state=state)
            self._rows.enrol(row, Arrival(device, authority.tenant, source, who, group=terms.group))
        except Conflict:
            return (self._rows.find(row.fingerprint) or ("", False))[1]  # it came by two connections at once
        except Forbidden:  # the tenant is suspended
            return False
        ENROLLED.labels("authority").inc()
        return True

    def _join(self, authority: AuthorityRow, row: CertificateRow, credential: CredentialRow, who: Who) -> bool:
        """Add a certificate to a device that exists, of the authority's own tenant only."""
        if self._rows.tenant_of(row.device) != authority.tenant:
            return False
        self._rows.add_certificate(row, credential, who)
        return True

    def _find(self, tenant: str, name: str) -> AuthorityRow:
        for row in self._rows.of_tenant(tenant):
            if row.name == name and row.tenant == tenant:
                return row
        raise NotFound(f"no authority {name[:80]!r}", code="authority_not_found")

    def _own(self) -> AuthorityRow:
        """Give that of our own authorities which signs: the newest."""
        own = self._rows.own()
        if not own:
            raise NotFound(NONE_YET, code="authority_not_found")
        if _end_ns(own[-1]) <= clock.now_ns():
            raise Conflict("the authority of our own is over; it signs nothing any more", code="authority_expired")
        return own[-1]

    def _lasting(self) -> list[AuthorityRow]:
        """Give our own authorities that are trusted, the oldest first; when all are over, the newest."""
        own = self._rows.own()
        return [row for row in own if _end_ns(row) > clock.now_ns()] or own[-1:]

    def _for_listeners(self, days: int) -> AuthorityRow:
        """Give that which signs a listener for so many days: the oldest, for that is what all devices trust."""
        newest, end_ns = self._own(), clock.now_ns() + days * DAY_NS
        return next((row for row in self._lasting() if _end_ns(row) > end_ns), newest)

    def _opened(self, own: AuthorityRow) -> tuple[str, bytes]:
        return own.certificate, self._seal.open(own.key or "", own.id)


def _end_ns(own: AuthorityRow) -> int:
    from devices.x509 import pki

    return pki.read(own.certificate).end_ns


def _credential(device_id: str, fingerprint: str, start_ns: int, end_ns: int) -> CredentialRow:
    key = "x" + secrets.token_hex(8)
    return CredentialRow(key, device_id, fingerprint, CERTIFICATE, clock.now_ns(), start_ns, end_ns)


def _view(row: AuthorityRow) -> AuthorityView:
    from devices.x509 import pki

    return AuthorityView(
        name=row.name,
        certificate=row.certificate,
        is_own=row.is_own,
        id_from=row.id_from,
        **row.terms.model_dump(),
        state="active" if row.challenge is None else "pending",
        challenge=row.challenge,
        created=row.created_ns,
        expires=pki.read(row.certificate).end_ns,
    )
