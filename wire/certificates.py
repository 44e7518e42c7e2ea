"""Certificates of devices: bodies of `/v1/certificate-authorities` and `/v1/devices/{id}/certificates`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from wire.devices import Model, Name, Text
from wire.enrolment import Terms
from wire.points import TimeNs

Pem = Annotated[str, Field(max_length=16_384, pattern=r"^[\x09\x0a\x0d\x20-\x7e]*$")]
IdFrom = Literal["CN", "SAN", "OU", "SERIALNUMBER"]
MAX_DAYS = 3_650


class AuthorityCreate(Terms):
    """An authority: our own (no certificate), or a customer's, whose owner has to prove that he holds its key."""

    name: Name
    certificate: Pem | None = None
    id_from: IdFrom = "CN"  # what of a certificate is the device's id


class AuthorityView(BaseModel):
    """An authority without its key; `challenge` is the CN of the certificate that would prove it."""

    name: str
    certificate: str
    is_own: bool
    id_from: str
    ids: str
    type: str | None
    tags: dict[str, str]
    group: str | None = None
    policy: str
    state: Literal["pending", "active"]
    challenge: str | None
    created: TimeNs
    expires: TimeNs


class AuthorityList(BaseModel):
    """All authorities."""

    items: list[AuthorityView]


class AuthorityProof(Model):
    """A certificate whose CN is the challenge, signed by the authority."""

    certificate: Pem


class CertificateWaiting(BaseModel):
    """A device that has a certificate of an older authority of ours, and none of the newest yet."""

    device: str
    expires: TimeNs  # the last one that it has


class CertificatesWaiting(BaseModel):
    """Devices in order of their ids; `next` is the cursor of what follows."""

    items: list[CertificateWaiting]
    next: str | None


class CertificateRequest(Model):
    """A device's request (CSR); it gets a certificate of our own authority."""

    csr: Pem
    days: Annotated[int, Field(ge=1, le=MAX_DAYS)] = 365


class ServerRequest(Model):
    """A listener's request (CSR), for HTTPS and MQTT with TLS."""

    csr: Pem
    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$")]
    days: Annotated[int, Field(ge=1, le=MAX_DAYS)] = 365


class CertificateIssued(BaseModel):
    """A certificate just made; `credential` is the id by which it is listed and revoked."""

    credential: str | None
    certificate: str
    authority: str
    fingerprint: str
    serial: str
    expires: TimeNs


class Resolve(Model):
    """A certificate whose key somebody has just proved to hold (internal)."""

    certificate: Pem
    remote_ip: Text = ""


class Resolved(BaseModel):
    """Whose certificate it is, if it is good (internal)."""

    device: str | None
