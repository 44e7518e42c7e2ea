"""Certificates as credentials: signed by us or by a customer, revoked, and never another tenant's."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from devices.broker.mosquitto_file import MosquittoFile
from devices.database.engine import Database
from devices.enrolment.seal import Seal
from devices.x509 import pki
from devices.x509.revocations import AHEAD_S, FRESH_S, Revocations
from devices.x509.service import Authorities
from devices.x509.store import AuthorityStore
from tests.devices.running import ADMIN, Caller, Service
from wire import clock

AUTHORITIES = "/v1/certificate-authorities"


@pytest.fixture
def service(config):
    started = Service(config.model_copy(update={"registry_key": "k" * 43}))
    yield started
    started.stop()


class Customer:
    """A customer's own authority."""

    def __init__(self) -> None:
        self.certificate, key = pki.make_authority("Acme root")
        self.opened = (self.certificate, key)

    def sign(self, name: str) -> str:
        return pki.sign(self.opened, pki.make_request(name)[0], name, 30)

    def sign_odd(self, *names: str, days: int = 30) -> str:
        """Sign with a subject of these CNs, as somebody else's tools would, for longer than it lasts itself."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name, _validate=False) for name in names])
        own = x509.load_pem_x509_certificate(self.certificate.encode())
        key = ec.generate_private_key(ec.SECP256R1())
        begin = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(own.subject).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(begin)
        signer = serialization.load_pem_private_key(self.opened[1], None)
        made = builder.not_valid_after(begin + dt.timedelta(days=days)).sign(signer, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM).decode()


def make_own(service: Service) -> None:
    assert service.admin("POST", AUTHORITIES, {"name": "own"}).status_code == 201


def sign(service: Service, device: str, csr: str | None = None) -> Any:
    csr = pki.make_request("whatever")[0] if csr is None else csr
    return service.admin("POST", f"/v1/devices/{device}/certificates", {"csr": csr})


def resolve(service: Service, certificate: str) -> str | None:
    answer = service.internal("POST", "/internal/certificates:resolve", {"certificate": certificate})
    assert answer.status_code == 200
    return answer.json["device"]


def trust(service: Service, customer: Customer, **terms: Any) -> None:
    made = service.admin("POST", AUTHORITIES, {"name": "acme", "certificate": customer.certificate} | terms)
    proof = {"certificate": customer.sign(made.json["challenge"])}
    assert service.admin("POST", f"{AUTHORITIES}/acme:prove", proof).status_code == 204


def revoked(service: Service) -> set[str]:
    return pki.serials_of(service.admin("GET", f"{AUTHORITIES}:crl").get_data())


def test_certificate_opens_twin_and_commands_until_it_is_revoked(service) -> None:
    make_own(service)
    service.register("d1")
    made = sign(service, "d1").json
    shown = {"X-Client-Certificate": quote(made["certificate"])}

    for path in ("twin", "commands"):
        assert service.nobody("GET", f"/v1/device/{path}", headers=shown).status_code in (200, 204)
    service.admin("DELETE", f"/v1/devices/d1/credentials/{made['credential']}")

    assert service.nobody("GET", "/v1/device/twin", headers=shown).status_code == 401
    assert service.nobody("GET", "/v1/device/twin", headers={"X-Client-Certificate": "no"}).status_code == 401
    assert service.nobody("GET", "/v1/device/twin", headers=shown | {"Authorization": "Bearer d1.x"}).status_code == 401


def test_device_of_a_customers_authority_gets_a_certificate_of_ours(service) -> None:
    make_own(service)
    customer = Customer()
    trust(service, customer)
    shown = {"X-Client-Certificate": quote(customer.sign("pump-1"))}
    wanted = {"csr": pki.make_request("another")[0]}

    made = service.nobody("POST", "/v1/device/certificates", wanted, headers=shown)

    assert made.status_code == 201
    own = pki.read(made.json["certificate"])
    assert (own.name("CN"), pki.is_signed_by(own, made.json["authority"])) == ("pump-1", True)
    assert resolve(service, made.json["certificate"]) == "pump-1"
    assert service.nobody("POST", "/v1/device/certificates", wanted).status_code == 401


def test_authority_that_is_over_lets_nobody_in(service, monkeypatch) -> None:
    monkeypatch.setattr(pki, "CA_DAYS", 0)
    make_own(service)
    service.register("d1")
    customer = Customer()
    trust(service, customer)

    assert (sign(service, "d1").status_code, sign(service, "d1").json["code"]) == (409, "authority_expired")
    assert resolve(service, customer.sign_odd("pump-1")) is None
    assert service.admin("GET", "/v1/devices/pump-1").status_code == 404


def test_certificate_ends_with_its_authority_at_the_latest(service) -> None:
    customer = Customer()
    trust(service, customer)

    assert resolve(service, customer.sign_odd("pump-1", days=9_000)) == "pump-1"

    [credential] = service.admin("GET", "/v1/devices/pump-1/credentials").json["items"]
    ends = dt.datetime.fromtimestamp(pki.read(customer.certificate).end_ns / 1e9, dt.UTC)
    assert credential["not_after"][:19] == ends.isoformat()[:19]


@pytest.mark.parametrize("names", [(), ("a", "b"), ("a/b",), ("d\x00",), ("\u0131d",), ("_devices",)])
def test_odd_subjects_name_nobody(service, names) -> None:
    customer = Customer()
    trust(service, customer)

    assert resolve(service, customer.sign_odd(*names)) is None
    assert service.admin("GET", "/v1/devices").json["items"] == []


def test_signed_certificate_is_a_credential_of_its_device(service) -> None:
    make_own(service)
    service.register("d1")

    made = sign(service, "d1").json

    shown = pki.read(made["certificate"])
    assert (shown.name("CN"), pki.is_signed_by(shown, made["authority"]), pki.is_authority(shown)) == (
        "d1",
        True,
        False,
    )
    assert resolve(service, made["certificate"]) == "d1"
    found = service.internal("POST", "/internal/devices:lookup", {"ids": ["d1"]}).json["devices"][0]
    assert (found["credentials"][-1]["sha256"], found["credentials"][-1]["kind"]) == (shown.fingerprint, "x509")
    assert [item["id"] for item in service.admin("GET", "/v1/devices/d1").json["credentials"]][-1] == made["credential"]


@pytest.mark.parametrize("how", ["revoke", "disable", "delete"])
def test_what_is_no_live_credential_is_on_the_list(service, how) -> None:
    make_own(service)
    service.register("d1")
    made = sign(service, "d1").json
    assert revoked(service) == set()

    if how == "revoke":
        service.admin("DELETE", f"/v1/devices/d1/credentials/{made['credential']}")
    elif how == "delete":
        service.admin("DELETE", "/v1/devices/d1")
    else:
        service.admin("POST", "/v1/devices/d1:disable")
    assert revoked(service) == {made["serial"]}

    if how == "disable":
        service.admin("POST", "/v1/devices/d1:enable")
        assert revoked(service) == set()
    else:
        assert resolve(service, made["certificate"]) is None


@pytest.mark.parametrize(
    "csr", ["", "nonsense", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----"]
)
def test_bad_request_is_refused(service, csr) -> None:
    make_own(service)
    service.register("d1")

    assert (sign(service, "d1", csr).status_code, sign(service, "nobody").status_code) == (422, 404)


def test_there_is_one_authority_of_our_own_and_its_key_leaves_nobody(service) -> None:
    service.register("d1")
    assert sign(service, "d1").json["code"] == "authority_not_found"
    make_own(service)

    assert service.admin("POST", AUTHORITIES, {"name": "second"}).json["code"] == "authority_exists"
    with service.app.extensions["headwater.database"].read() as connection:
        rows = str(connection.exec_driver_sql("SELECT * FROM authorities").all())
    assert "PRIVATE KEY" not in rows + service.admin("GET", AUTHORITIES).get_data(as_text=True)


def test_customers_authority_is_trusted_once_it_has_proved_its_key(service) -> None:
    customer, thief = Customer(), Customer()
    made = service.admin("POST", AUTHORITIES, {"name": "acme", "certificate": customer.certificate, "ids": "pump-*"})
    device = customer.sign("pump-1")
    assert (made.json["state"], resolve(service, device)) == ("pending", None)

    stolen = {"certificate": thief.sign(made.json["challenge"])}
    assert service.admin("POST", f"{AUTHORITIES}/acme:prove", stolen).json["code"] == "not_proved"
    proof = {"certificate": customer.sign(made.json["challenge"])}
    assert service.admin("POST", f"{AUTHORITIES}/acme:prove", proof).status_code == 204

    assert (resolve(service, device), resolve(service, device)) == ("pump-1", "pump-1")
    assert resolve(service, thief.sign("pump-2")) is None
    assert resolve(service, customer.sign("valve-1")) is None
    assert resolve(service, customer.certificate) is None


def test_customers_devices_are_held_when_the_terms_say_so(service) -> None:
    customer = Customer()
    trust(service, customer, policy="hold", type="pump")

    assert resolve(service, customer.sign("pump-1")) == "pump-1"

    [item] = service.admin("GET", "/v1/holds").json["items"]
    assert (item["id"], item["source"], item["type"]) == ("pump-1", "authority:acme", "pump")


def test_customers_authority_has_no_say_over_another_tenants_device(service) -> None:
    customer = Customer()
    trust(service, customer)
    service.register("mine")
    with service.app.extensions["headwater.database"].write() as transaction:
        transaction.connection.exec_driver_sql("UPDATE authorities SET tenant = 'other'")

    assert resolve(service, customer.sign("mine")) is None


def test_removed_authority_takes_its_certificates_along(service) -> None:
    customer = Customer()
    trust(service, customer)
    device = customer.sign("pump-1")
    resolve(service, device)

    assert service.admin("DELETE", f"{AUTHORITIES}/acme").status_code == 204

    assert resolve(service, device) is None
    assert service.admin("GET", "/v1/devices/pump-1").json["credentials"] == []


def test_fingerprint_is_no_secret_at_any_door(service) -> None:
    make_own(service)
    service.register("d1")
    made = sign(service, "d1").json

    presented = Caller(service.app, f"d1.{made['fingerprint']}")
    assert presented("GET", "/v1/twin").status_code in (401, 404)


def test_broker_gets_the_list_and_is_told_whom_to_cut(sqlite_config, tmp_path: Path) -> None:
    files = {"broker_passwd_file": "passwd", "broker_ca_file": "ca.pem", "broker_crl_file": "crl.pem"}
    more = {name: str(tmp_path / file) for name, file in files.items()} | {"registry_key": "k" * 43}
    started = Service(sqlite_config.model_copy(update=more))
    from tests.support.waiting import wait_until

    make_own(started)
    started.register("d1")
    made = sign(started, "d1").json
    crl = tmp_path / "crl.pem"
    wait_until(crl.exists)
    assert pki.serials_of(crl.read_bytes()) == set()

    started.admin("POST", "/v1/devices/d1:disable")

    wait_until(lambda: pki.serials_of(crl.read_bytes()) == {made["serial"]}, 2)
    started.stop()


@pytest.mark.parametrize("leap_s", [FRESH_S + 1, -AHEAD_S - 1, -40 * 86_400])
def test_revocation_list_is_written_anew_daily_and_when_the_clock_leaps(sqlite_config, tmp_path, monkeypatch, leap_s):
    started = Service(sqlite_config.model_copy(update={"registry_key": "k" * 43}))
    make_own(started)
    started.stop()
    database, crl = Database("sqlite:", sqlite_config.data), tmp_path / "crl.pem"
    revocations = Revocations(
        Authorities(AuthorityStore(database), Seal("k" * 43)), tmp_path / "ca", crl, lambda _: None
    )
    auth = MosquittoFile(tmp_path / "passwd", None, None, revocations)
    auth.replace([])
    first = crl.read_bytes()
    auth.settle()
    assert crl.read_bytes() == first

    real_ns = clock.now_ns()
    monkeypatch.setattr(clock, "now_ns", lambda: real_ns + leap_s * clock.NS_PER_S)
    auth.settle()

    shown = x509.load_pem_x509_crl(crl.read_bytes())
    now = dt.datetime.fromtimestamp(clock.now_ns() / 1e9, dt.UTC)
    assert shown.last_update_utc < now < shown.next_update_utc
    assert crl.read_bytes() != first
    database.close()


def test_renewed_authority_signs_and_the_old_one_is_trusted_until_it_ends(service) -> None:
    make_own(service)
    for name in ("d1", "d2"):
        service.register(name)
    old = sign(service, "d1").json

    renewed = service.admin("POST", f"{AUTHORITIES}:renew")
    new = sign(service, "d2").json

    assert (renewed.status_code, renewed.json["name"], renewed.json["is_own"]) == (201, "own-2", True)
    assert pki.is_signed_by(pki.read(old["certificate"]), old["authority"])
    assert pki.is_signed_by(pki.read(new["certificate"]), renewed.json["certificate"])
    assert new["authority"] == renewed.json["certificate"] + old["authority"]
    assert [resolve(service, each["certificate"]) for each in (old, new)] == ["d1", "d2"]
    assert service.admin("POST", f"{AUTHORITIES}:renew").json["code"] == "authority_exists"
    waiting = service.admin("GET", f"{AUTHORITIES}:waiting").json
    assert waiting == {"items": [{"device": "d1", "expires": old["expires"]}], "next": None}
    assert service.admin("GET", f"{AUTHORITIES}:waiting?cursor=d1").json["items"] == []
    sign(service, "d1")
    assert service.admin("GET", f"{AUTHORITIES}:waiting").json["items"] == []
    for name, made in (("d1", old), ("d2", new)):
        service.admin("DELETE", f"/v1/devices/{name}/credentials/{made['credential']}")
    assert revoked(service) == {old["serial"], new["serial"]}


def test_listeners_are_signed_by_the_old_authority_while_it_lasts_long_enough(service, monkeypatch) -> None:
    monkeypatch.setattr(pki, "CA_DAYS", 100)
    make_own(service)
    first = service.admin("GET", AUTHORITIES).json["items"][0]["certificate"]
    monkeypatch.undo()
    second = service.admin("POST", f"{AUTHORITIES}:renew").json["certificate"]

    signers = []
    for days in (90, 101):
        body = {"csr": pki.make_request("gw")[0], "host": "gw.example.org", "days": days}
        made = pki.read(service.admin("POST", f"{AUTHORITIES}:sign-server", body).json["certificate"])
        signers.append(next(each for each in (first, second) if pki.is_signed_by(made, each)))

    assert signers == [first, second]


def test_ended_authority_is_trusted_no_more_beside_its_successor(service, monkeypatch) -> None:
    monkeypatch.setattr(pki, "CA_DAYS", 0)
    make_own(service)
    monkeypatch.undo()

    renewed = service.admin("POST", f"{AUTHORITIES}:renew").json

    service.register("d1")
    assert sign(service, "d1").json["authority"] == renewed["certificate"]
    assert service.admin("POST", f"{AUTHORITIES}:renew").json["name"] == "own-3"


def test_there_is_nothing_to_renew_before_the_first_and_only_the_platform_may(service) -> None:
    assert service.admin("POST", f"{AUTHORITIES}:renew").status_code == 404
    make_own(service)
    assert service.caller("admin")("POST", f"{AUTHORITIES}:renew").status_code == 403


def test_our_own_authority_is_the_platforms_affair(service) -> None:
    admin, request = service.caller("admin"), pki.make_request("gw.example.org")[0]

    assert admin("POST", AUTHORITIES, {"name": "mine"}).status_code == 403
    make_own(service)
    body = {"csr": request, "host": "gw.example.org"}
    assert admin("POST", f"{AUTHORITIES}:sign-server", body).status_code == 403
    made = service.admin("POST", f"{AUTHORITIES}:sign-server", body).json
    assert (pki.read(made["certificate"]).name("SAN"), resolve(service, made["certificate"])) == (
        "gw.example.org",
        None,
    )


def test_suspended_tenants_authority_lets_nobody_in(service) -> None:
    service.admin("POST", "/v1/tenants", {"id": "acme", "title": "Acme"})
    acme, customer = Caller(service.app, f"{ADMIN}@acme"), Customer()
    made = acme("POST", AUTHORITIES, {"name": "acme", "certificate": customer.certificate}).json
    acme("POST", f"{AUTHORITIES}/acme:prove", {"certificate": customer.sign(made["challenge"])})
    certificate = customer.sign("d1")

    service.admin("POST", "/v1/tenants/acme:suspend")
    late = resolve(service, certificate)
    service.admin("POST", "/v1/tenants/acme:resume")

    assert (late, resolve(service, certificate)) == (None, "d1")
