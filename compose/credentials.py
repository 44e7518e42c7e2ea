"""The secrets of an installation, made at its first start: nothing has a default password."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chassis.tokens import hash_token
from compose.folder import Folder, write_private
from ingest.protocols import SERVICES

ADMIN = "admin"
# Beside the bridges; each shows a token of its own.
INNER = ("devices", "writer", "dashboard", *(f"ingest-{service}" for service in SERVICES))
BROKER_USERS = ("writer", "dashboard", "devices", "control")  # `_writer` ... at the broker, beside the bridges
ROUNDS = 101  # mosquitto's own number; tokens are 256 random bits, so a slow hash would protect nothing
SALT_BYTES = 12
FORMAT_PARTS = 5


@dataclass(slots=True, frozen=True)
class Secrets:
    """What the start made or found."""

    admin_password: str | None  # only at the first start, to be shown once; kept nowhere
    folder: Path

    def broker_token_file(self, user: str) -> Path:
        """File of a service's broker password."""
        return self.folder / f"broker-{user}.token"

    def service_token_file(self, name: str) -> Path:
        """File of the token that a service shows to the others."""
        return self.folder / f"service-{name}.token"

    @property
    def services_file(self) -> Path:
        """File of the hashes of these tokens, by which a service knows the others."""
        return self.folder / "services.list"


def ensure(folder: Folder, bridges: Sequence[str] = ("bridge",)) -> Secrets:
    """Make what is missing of the secrets and the broker's password files."""
    users = (*bridges, *BROKER_USERS)
    tokens = [f"broker-{user}.token" for user in users]
    for name in ("operator.token", "registry.key", *tokens):
        _ensure_token(folder.secrets / name)
    made = Secrets(_ensure_admin(folder.secrets / "admin.hash"), folder.secrets)
    _ensure_services(made, (*INNER, *bridges))
    _seed_password_files(folder, made, users)
    return made


def hash_for_mosquitto(password: str, salt: bytes | None = None) -> str:
    """Hash as mosquitto 2 does: `$7$rounds$salt$hash`, PBKDF2 with SHA-512."""
    salt = os.urandom(SALT_BYTES) if salt is None else salt
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ROUNDS)
    return f"$7${ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def matches(password: str, hashed: str) -> bool:
    """Tell whether a mosquitto hash is that of the password."""
    parts = hashed.split("$")
    if len(parts) != FORMAT_PARTS or parts[1:3] != ["7", str(ROUNDS)]:
        return False
    try:
        return hmac.compare_digest(hash_for_mosquitto(password, base64.b64decode(parts[3])), hashed)
    except ValueError:
        return False


def _ensure_token(path: Path) -> None:
    if path.exists() and path.read_text().strip():
        path.chmod(0o600)
        return
    write_private(path, secrets.token_urlsafe(32) + "\n")


def _ensure_services(made: Secrets, names: Sequence[str]) -> None:
    """Make the token of each service, and the list of their hashes; the one of all, of older versions, goes."""
    lines = []
    for name in names:
        path = made.service_token_file(name)
        _ensure_token(path)
        lines.append(f"{name} {hash_token(path.read_text().strip())}\n")
    write_private(made.services_file, "".join(lines))
    (made.folder / "service.token").unlink(missing_ok=True)


def _ensure_admin(path: Path) -> str | None:
    if path.exists() and path.read_text().strip():
        path.chmod(0o600)
        return None
    from devices.people.passwords import hash_password

    password = secrets.token_urlsafe(12)
    write_private(path, hash_password(password) + "\n")
    return password


def _seed_password_files(folder: Folder, made: Secrets, services_users: Sequence[str]) -> None:
    """Write `services.passwd`, and put those users into `devices.passwd` where the devices service did not yet."""
    services = folder.broker / "services.passwd"
    known = _read_users(services)
    wanted = {f"_{user}": made.broker_token_file(user).read_text().strip() for user in services_users}
    users = {
        name: known[name] if matches(token, known.get(name, "")) else hash_for_mosquitto(token)
        for name, token in wanted.items()
    }
    if users != known:
        write_private(services, _render(users))
    everybody = folder.broker / "devices.passwd"
    present = _read_users(everybody)
    if users.items() <= present.items():
        return
    write_private(everybody, _render({name: hashed for name, hashed in present.items() if name[:1] != "_"} | users))


def _read_users(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return {}
    return {name: hashed for name, colon, hashed in (line.partition(":") for line in lines) if colon}


def _render(users: dict[str, str]) -> str:
    return "".join(f"{name}:{hashed}\n" for name, hashed in users.items())
