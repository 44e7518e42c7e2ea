"""Makes the server certificate of an installation by its own authority, when there is none or it is to be renewed.

A process of its own: `python -m compose.issuer DATA NAME...`. It works on the registry's database, whether the registry
runs or not, and writes `tls/server.pem`, `tls/ca.pem`, `secrets/tls.key`, and what the broker needs to take devices'
certificates from the first start on.
"""

from __future__ import annotations

import sys
from pathlib import Path

from chassis import settings
from compose.folder import Folder, write_private
from devices.config import DevicesConfig
from devices.database.engine import Database
from devices.database.schema import migrate
from devices.enrolment.seal import Seal
from devices.x509 import pki
from devices.x509.revocations import Revocations
from devices.x509.service import Authorities
from devices.x509.store import AuthorityStore
from wire.errors import HeadwaterError

DAYS = 90
RENEW_DAYS = 30  # before its end


def issue(folder: Folder, authorities: Authorities, names: list[str]) -> bool:
    """Make a certificate for these names unless a good one is there; tell whether it was made."""
    authority = authorities.ensure_own(DAYS)
    trusted = folder.tls_cert.with_name("ca.pem")
    folder.tls_cert.parent.mkdir(mode=0o700, exist_ok=True)
    if _read(trusted).decode() != authorities.bundle():
        write_private(trusted, authorities.bundle())
    if pki.serves(_read(folder.tls_cert), _read(folder.tls_key), authority, names, RENEW_DAYS):
        return False
    csr, key = pki.make_request(names[0][:64])
    made = authorities.sign_server(csr, names, DAYS)
    write_private(folder.tls_key, key.decode())
    write_private(folder.tls_cert, made.certificate)  # last: who watches it finds all three
    return True


def main(arguments: list[str]) -> int:
    """Do it for a data folder and names; one line on stderr when it cannot be done."""
    folder = Folder(Path(arguments[0]))
    config = settings.load(DevicesConfig, {"data": folder.root})
    database = Database(config.registry, folder.root)
    try:
        migrate(database, folder.root)
        authorities = Authorities(AuthorityStore(database), Seal(config.registry_key))
        issue(folder, authorities, arguments[1:])
        ca, crl = folder.broker / "ca.pem", folder.broker / "crl.pem"
        if not (ca.exists() and crl.exists()):  # else the registry keeps them
            Revocations(authorities, ca, crl, lambda _: None).write()
    except HeadwaterError as error:
        print(error.detail, file=sys.stderr)
        return 1
    finally:
        database.close()
    return 0


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
