"""Routes of certificates: HTTP in and out, no rules."""

from __future__ import annotations

from typing import Annotated

from flask import Response
from pydantic import Field, TypeAdapter

from chassis.bodies import read_model
from chassis.web import Api, Call
from devices.api import DEVICE, MAX_LIST, who
from devices.control.door import DeviceDoor
from devices.rows import Who
from devices.x509.service import Authorities
from wire import clock
from wire.certificates import (
    AuthorityCreate,
    AuthorityList,
    AuthorityProof,
    AuthorityView,
    CertificateIssued,
    CertificateRequest,
    CertificatesWaiting,
    Resolve,
    Resolved,
    ServerRequest,
)
from wire.devices import Model, Text
from wire.errors import NotFound

AUTHORITIES = "/v1/certificate-authorities"
REQUEST = TypeAdapter(CertificateRequest)


class WaitingQuery(Model):
    """Which part of the devices."""

    limit: Annotated[int, Field(ge=1, le=MAX_LIST)] = 100
    cursor: Text = ""


def add_routes(api: Api, authorities: Authorities, door: DeviceDoor) -> None:
    """Declare the routes."""
    _add_authorities(api, authorities)
    _add_renewal(api, authorities)
    _add_signing(api, authorities, door)


def _add_authorities(api: Api, authorities: Authorities) -> None:
    @api.route("GET", AUTHORITIES, "viewer", answers={200: AuthorityList})
    def list_authorities(call: Call) -> AuthorityList:
        """List the authorities whose certificates devices may come with."""
        return AuthorityList(items=authorities.of_tenant(call.actor.tenant))

    @api.route("POST", AUTHORITIES, "admin", body=AuthorityCreate, answers={201: AuthorityView})
    def create_authority(call: Call) -> AuthorityView:
        """Make our own authority, or register a customer's by its certificate."""
        return authorities.create(call.actor.tenant, call.body, who(call))

    @api.route("POST", AUTHORITIES + "/<name>:prove", "admin", body=AuthorityProof, answers={204: None})
    def prove_authority(call: Call) -> None:
        """Prove to hold an authority's key, by a certificate whose CN is the challenge."""
        authorities.prove(call.actor.tenant, call.path["name"], call.body.certificate, who(call))

    @api.route("DELETE", AUTHORITIES + "/<name>", "admin", answers={204: None})
    def remove_authority(call: Call) -> None:
        """Trust a customer's authority no more."""
        authorities.remove(call.actor.tenant, call.path["name"], who(call))

    @api.route("GET", AUTHORITIES + ":crl", "viewer")
    def revocation_list(_call: Call) -> Response:
        """Give our own authority's revocation list, as of now, in PEM."""
        found = authorities.revocations(clock.now_ns() // clock.NS_PER_S)
        if found is None:
            raise NotFound("there is no authority of our own yet", code="authority_not_found")
        return Response(found[1], mimetype="application/x-pem-file")


def _add_renewal(api: Api, authorities: Authorities) -> None:
    @api.route("POST", AUTHORITIES + ":renew", "platform", answers={201: AuthorityView})
    def renew_authority(call: Call) -> AuthorityView:
        """Make a new authority of our own; the old one is trusted beside it until it ends."""
        return authorities.renew(who(call))

    @api.route("GET", AUTHORITIES + ":waiting", "viewer", query=WaitingQuery, answers={200: CertificatesWaiting})
    def list_waiting(call: Call) -> CertificatesWaiting:
        """List the devices that have no certificate of our newest authority yet, but of an older one."""
        items = authorities.waiting(call.actor.tenant, call.query.cursor, call.query.limit)
        return CertificatesWaiting(items=items, next=items[-1].device if len(items) == call.query.limit else None)


def _add_signing(api: Api, authorities: Authorities, door: DeviceDoor) -> None:
    @api.route(
        "POST",
        DEVICE + "/certificates",
        "operator",
        body=CertificateRequest,
        answers={201: CertificateIssued},
        reach="path",
    )
    def sign_certificate(call: Call) -> CertificateIssued:
        """Sign a device's request (CSR) by our own authority; the certificate is a credential at once."""
        return authorities.sign(call.actor.tenant, call.path["device_id"], call.body, who(call))

    @api.route("POST", "/v1/device/certificates", "own", body=CertificateRequest, answers={201: CertificateIssued})
    def sign_own_certificate(call: Call) -> CertificateIssued:
        """Sign the request (CSR) of the device that asks, by whatever credential it has."""
        device = door.authenticate(door.read_claim(call.remote_ip))
        asker = Who(f"device:{device.id}", call.remote_ip, device.tenant)
        return authorities.sign(device.tenant, device.id, read_model(REQUEST), asker)

    @api.route("POST", AUTHORITIES + ":sign-server", "platform", body=ServerRequest, answers={201: CertificateIssued})
    def sign_server(call: Call) -> CertificateIssued:
        """Sign the request (CSR) of a listener, for HTTPS and MQTT with TLS."""
        return authorities.sign_server(call.body.csr, [call.body.host], call.body.days)

    @api.route("POST", "/internal/certificates:resolve", "service", callers=("ingest",), body=Resolve)
    def resolve(call: Call) -> Resolved:
        """Tell whose a certificate is."""
        return Resolved(device=authorities.resolve(call.body.certificate, call.body.remote_ip))
