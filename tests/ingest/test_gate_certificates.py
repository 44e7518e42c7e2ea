"""Certificates at the gate: credentials of their own kind, whose key the gateway has seen proved."""

from __future__ import annotations

import hashlib
import ssl
from typing import Any
from urllib.parse import quote

import pytest

from chassis.tokens import hash_token
from ingest.gate import Gate
from tests.ingest.intake_support import SECRET, FakeRegistry
from wire.devices import CredentialRecord
from wire.errors import Forbidden, Unauthorized

RESOLVE = "/internal/certificates:resolve"
DER = b"the bytes of a certificate"
SHOWN = quote(ssl.DER_cert_to_PEM_cert(DER))


class Resolving(FakeRegistry):
    """Knows whose a certificate is."""

    def __init__(self) -> None:
        super().__init__()
        self.owner: str | None = "d1"

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> Any:
        if path != RESOLVE:
            return super().call(method, path, body, token=token)
        self.calls.append(path)
        return {"device": self.owner if ssl.PEM_cert_to_DER_cert(body["certificate"]) == DER else None}


@pytest.fixture
def registry() -> Resolving:
    made = Resolving()
    held = CredentialRecord(id="x-1", sha256=hashlib.sha256(DER).hexdigest(), kind="x509")
    made.add("d1", credentials=[held])
    return made


@pytest.fixture
def gate(registry: Resolving) -> Gate:
    made = Gate(registry)
    made.poll()
    return made


def test_certificate_is_asked_about_once(gate, registry) -> None:
    assert [gate.authenticate_certificate(SHOWN)[1] for _ in range(3)] == ["x-1"] * 3
    assert registry.calls.count(RESOLVE) == 1


def test_revoked_certificate_stays_out_with_the_next_poll(gate, registry) -> None:
    gate.authenticate_certificate(SHOWN)
    registry.put(registry.devices["d1"].model_copy(update={"credentials": []}))
    gate.poll()

    with pytest.raises(Unauthorized):
        gate.authenticate_certificate(SHOWN)


def test_disabled_device_is_forbidden(gate, registry) -> None:
    gate.authenticate_certificate(SHOWN)
    registry.put(registry.devices["d1"].model_copy(update={"state": "disabled"}))
    gate.poll()

    with pytest.raises(Forbidden):
        gate.authenticate_certificate(SHOWN)


@pytest.mark.parametrize(
    "shown", ["", "nonsense", quote("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----")]
)
def test_what_is_no_certificate_is_unauthorized(gate, shown) -> None:
    with pytest.raises(Unauthorized):
        gate.authenticate_certificate(shown)


def test_strangers_certificate_is_unauthorized(gate, registry) -> None:
    registry.owner = None

    with pytest.raises(Unauthorized):
        gate.authenticate_certificate(SHOWN)


def test_kinds_of_credentials_do_not_stand_for_each_other(gate, registry) -> None:
    as_secret = CredentialRecord(id="x-2", sha256=hash_token(SECRET), kind="x509")
    as_certificate = CredentialRecord(id="c-3", sha256=hashlib.sha256(DER).hexdigest(), kind="secret")
    registry.add("d2", credentials=[as_secret])
    registry.add("d1", credentials=[as_certificate])
    gate.poll()

    with pytest.raises(Unauthorized):
        gate.authenticate("d2", SECRET)
    with pytest.raises(Unauthorized):
        gate.authenticate_certificate(SHOWN)
