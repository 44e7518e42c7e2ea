"""`headwater ca`: certificates of devices, by our own authority or a customer's."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from compose import tables
from compose.client import add_group, at_least_one, connect, finish, pages, path
from compose.commands.finding import to_tags
from compose.folder import StartError, write_private

COLUMNS = ("name", "state", "is_own", "id_from", "ids", "policy", "type", "tags", "expires", "challenge")
ROUTE = "certificate-authorities"


def configure(commands: Any) -> None:
    """Add the command."""
    actions = add_group(commands, "ca", "certificates of devices: our own authority, or a customer's")
    init = actions.add_parser("init", help="make this installation's own authority")
    finish(init, _init)
    renew = actions.add_parser("renew", help="make a new authority; the old one is trusted beside it until it ends")
    finish(renew, _renew)
    waiting = actions.add_parser("waiting", help="list the devices that have no certificate of the new authority yet")
    finish(waiting, _waiting)
    _add_customers(actions)
    _add_signing(actions)
    finish(actions.add_parser("list", help="list the authorities"), _list)
    revoke = actions.add_parser("revoke", help="revoke a device's certificate, by the id of its credential")
    revoke.add_argument("id", help="device")
    revoke.add_argument("credential")
    finish(revoke, _revoke)


def _add_customers(actions: Any) -> None:
    register = actions.add_parser("register", help="register a customer's authority; prints the challenge to prove it")
    register.add_argument("name")
    register.add_argument("certificate", type=Path, metavar="CA.pem")
    register.add_argument("--id-from", choices=("CN", "SAN", "OU", "SERIALNUMBER"), default="CN", help="default CN")
    register.add_argument("--ids", metavar="PATTERN", help="ids it may name, such as 'pump-*' (default: any)")
    register.add_argument("--type", metavar="T", help="device type of those that come")
    register.add_argument("--tag", action="append", default=[], metavar="K=V", help="tag of those that come")
    register.add_argument("--group", metavar="G", help="group they are put into")
    register.add_argument("--hold", action="store_true", help="their data waits until they are accepted")
    finish(register, _register)
    prove = actions.add_parser("prove", help="prove to hold its key: a certificate whose CN is the challenge")
    prove.add_argument("name")
    prove.add_argument("certificate", type=Path, metavar="PROOF.pem")
    finish(prove, _prove)
    remove = actions.add_parser("remove", help="trust a customer's authority no more")
    remove.add_argument("name")
    finish(remove, _remove)


def _add_signing(actions: Any) -> None:
    sign = actions.add_parser("sign", help="sign a device's request (CSR); its key stays where it was made")
    sign.add_argument("id", help="device")
    sign.add_argument("csr", type=Path, metavar="REQUEST.pem")
    issue = actions.add_parser("issue", help="make a key and a certificate for a device")
    issue.add_argument("id", help="device")
    server = actions.add_parser("server", help="make a key and a certificate for --tls-key and --tls-cert")
    server.add_argument("host", help="name by which devices reach this machine")
    for parser, run in ((sign, _sign), (issue, _issue), (server, _server)):
        parser.add_argument("--days", type=at_least_one, default=365, metavar="N", help="of validity (default 365)")
        parser.add_argument(
            "--out", type=Path, default=Path(), metavar="DIR", help="where the files go (default: here)"
        )
        finish(parser, run)


def _init(given: argparse.Namespace) -> int:
    made = connect(given).call("POST", path(ROUTE), {"name": "own"})
    tables.show([made], ("name", "expires"), as_json=given.json)
    return 0


def _renew(given: argparse.Namespace) -> int:
    peer = connect(given)
    made = peer.call("POST", path(f"{ROUTE}:renew"))
    tables.show([made], ("name", "expires"), as_json=given.json)
    if not given.json:
        count = sum(1 for _ in pages(peer, f"{ROUTE}:waiting"))
        print(f"Devices with a certificate of the old one: {count} (headwater ca waiting)")
    return 0


def _waiting(given: argparse.Namespace) -> int:
    tables.show(pages(connect(given), f"{ROUTE}:waiting"), ("device", "expires"), as_json=given.json)
    return 0


def _list(given: argparse.Namespace) -> int:
    tables.show(connect(given).call("GET", path(ROUTE))["items"], COLUMNS, as_json=given.json)
    return 0


def _register(given: argparse.Namespace) -> int:
    body: dict[str, Any] = {"name": given.name, "certificate": _read(given.certificate), "id_from": given.id_from}
    body |= {"tags": to_tags(given.tag), "policy": "hold" if given.hold else "auto"}
    body |= {
        name: value
        for name, value in (("ids", given.ids), ("type", given.type), ("group", given.group))
        if value is not None
    }
    made = connect(given).call("POST", path(ROUTE), body)
    tables.show([made], ("name", "state", "challenge"), as_json=given.json)
    return 0


def _prove(given: argparse.Namespace) -> int:
    connect(given).call("POST", path(ROUTE, f"{given.name}:prove"), {"certificate": _read(given.certificate)})
    return _done(given, given.name, "proved")


def _remove(given: argparse.Namespace) -> int:
    connect(given).call("DELETE", path(ROUTE, given.name))
    return _done(given, given.name, "removed")


def _revoke(given: argparse.Namespace) -> int:
    connect(given).call("DELETE", path("devices", given.id, "credentials", given.credential))
    return _done(given, given.id, "revoked")


def _sign(given: argparse.Namespace) -> int:
    body = {"csr": _read(given.csr), "days": given.days}
    made = connect(given).call("POST", path("devices", given.id, "certificates"), body)
    return _keep(given, given.id, made, None)


def _issue(given: argparse.Namespace) -> int:
    from devices.x509 import pki

    csr, key = pki.make_request(given.id)
    made = connect(given).call("POST", path("devices", given.id, "certificates"), {"csr": csr, "days": given.days})
    return _keep(given, given.id, made, key)


def _server(given: argparse.Namespace) -> int:
    from devices.x509 import pki

    csr, key = pki.make_request(given.host)
    body = {"csr": csr, "host": given.host, "days": given.days}
    return _keep(given, given.host, connect(given).call("POST", path(f"{ROUTE}:sign-server"), body), key)


def _keep(given: argparse.Namespace, name: str, made: dict[str, Any], key: bytes | None) -> int:
    """Write the files: `NAME.pem`, `NAME.key` where we made the key, and `ca.pem`."""
    files = {f"{name}.pem": made["certificate"], "ca.pem": made["authority"]}
    try:
        given.out.mkdir(parents=True, exist_ok=True)
        if key is not None:
            write_private(given.out / f"{name}.key", key.decode())
        for file, content in files.items():
            (given.out / file).write_text(content)
    except OSError as error:
        raise StartError(f"{error.filename} cannot be written: {error.strerror}") from None
    tables.show([made], ("credential", "serial", "expires"), as_json=given.json)
    return 0


def _done(given: argparse.Namespace, name: str, done: str) -> int:
    tables.show([{"name": name, "done": done}], ("name", "done"), as_json=given.json)
    return 0


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError):
        raise StartError(f"{file} cannot be read as PEM") from None
