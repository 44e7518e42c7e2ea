"""A registry, a spool and an ingestion service in memory, for the tests of the service."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

from ingest.codecs import Codecs
from ingest.division import Division
from ingest.field_types import FieldTypes
from ingest.gate import Gate
from ingest.intake import Intake
from ingest.ports import Ports
from ingest.protocols import PROTOCOLS, Protocol, served_by
from ingest.quarantine import Quarantine
from ingest.rates import RateLimits
from ingest.readings import Reading
from ingest.replay import Replayer
from ingest.reports import Reports
from ingest.service import IngestService
from wire.devices import TENANT, CredentialRecord, DeviceIdentity, DeviceType, type_key
from wire.errors import NotFound, PeerUnavailable
from wire.external import to_device_id

SECRET = "s" * 43
SHARED = Path(__file__).parents[3] / "shared/fixtures"
CASES = Path(__file__).parents[1] / "cases"
ROLE_TOKENS = {
    "viewer": "viewer-token",
    "operator": "operator-token",
    "admin": "admin-token",
    "platform": "platform-token",
}


SCOPED_TOKEN = "token-for-some-devices"


class FakeRegistry:
    """Answers as the devices service does; `is_away` cuts it off."""

    def __init__(self) -> None:
        self.devices: dict[str, DeviceIdentity] = {}
        self.types: dict[str, DeviceType] = {}
        self.rate_limits: dict[str, str | None] = {}
        self.revision = 0
        self.changed: list[tuple[int, str, str]] = []
        self.is_away = False
        self.lookups_fail = False
        self.oldest = 0
        self.rules = "auto"  # for children nobody knows: auto, hold, or the code that refuses them
        self.names: dict[tuple[str, str], str] = {}  # (gateway or device itself, external name) -> device
        self.calls: list[str] = []
        self.seen: dict[str, int] = {}
        self.seen_by_mqtt: dict[str, int] = {}
        self.presence: dict[str, Any] = {}
        self.audit: list[dict[str, Any]] = []
        self.described: list[dict[str, Any]] = []
        self.scope: set[str] = set()  # the devices of SCOPED_TOKEN
        self._lock = threading.Lock()

    def add(self, device_id: str, secret: str = SECRET, **members: Any) -> str:
        credential = CredentialRecord(id=f"c-{device_id}", sha256=hashlib.sha256(secret.encode()).hexdigest())
        self.put(DeviceIdentity(id=device_id, **{"credentials": [credential]} | members))
        return f"{device_id}.{secret}"

    def put(self, device: DeviceIdentity) -> None:
        self.devices[device.id] = device
        self._change("devices", device.id)

    def put_type(self, **members: Any) -> None:
        spec = DeviceType.model_validate(members)
        self.types[type_key(TENANT, spec.name)] = spec
        self._change("types", type_key(TENANT, spec.name))

    def limit_tenant(self, tenant: str, limit: str | None) -> None:
        self.rate_limits[tenant] = limit
        self._change("tenants", tenant)

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> Any:
        if self.is_away or (self.lookups_fail and path.endswith(":lookup")):
            raise PeerUnavailable("away")
        with self._lock:
            self.calls.append(path)
        name = path.partition("?")[0].removeprefix("/internal/")
        return getattr(self, "_" + name.replace(":", "_"))(path, body)

    def _change(self, kind: str, key: str) -> None:
        self.revision += 1
        self.changed.append((self.revision, kind, key))

    def _devices_lookup(self, path: str, body: Any) -> Any:
        found = [self.devices[device_id] for device_id in body["ids"] if device_id in self.devices]
        names = {type_key(device.tenant, device.type or "") for device in found} & self.types.keys()
        return {
            "devices": [device.model_dump() for device in found],
            "types": {name: self.types[name].model_dump() for name in names},
            "revision": self.revision,
            "rate_limits": {device.tenant: self.rate_limits.get(device.tenant) for device in found},
        }

    def _changes(self, path: str, body: Any) -> Any:
        since = int(path.rpartition("=")[2])
        if since < self.oldest:
            return {"revision": self.revision, "reset": True}
        news = [(kind, key) for revision, kind, key in self.changed if revision > since]
        named = {name: [key for kind, key in news if kind == name] for name in ("devices", "types", "tenants")}
        return {"revision": self.revision, **named}

    def _children_admit(self, path: str, body: Any) -> Any:
        codes = {child: self.rules for child in body["children"] if self.rules not in ("auto", "hold")}
        for child in body["children"] if not codes else ():
            state = "held" if self.rules == "hold" else "active"
            self.put(DeviceIdentity(id=child, state=state, parent=body["gateway"]))
        named = {name: self._name(body["gateway"], name) for name in body["names"]}
        codes |= {name: self.rules for name, device in named.items() if device is None}
        return {"refused": codes, "named": {name: device for name, device in named.items() if device is not None}}

    def _name(self, gateway: str, name: str) -> str | None:
        if (gateway, name) not in self.names and self.rules in ("auto", "hold"):
            device = to_device_id(name)
            state = "held" if self.rules == "hold" else "active"
            self.put(DeviceIdentity(id=device, state=state, parent=gateway))
            self.name(name, device, gateway)
        return self.names.get((gateway, name))

    def name(self, name: str, device: str, gateway: str | None = None) -> None:
        self.names[gateway or device, name] = device
        if device in self.devices:
            names = sorted({*self.devices[device].names, name})
            self.devices[device] = self.devices[device].model_copy(update={"names": names})
        for changed in {gateway or device, device}:
            self._change("devices", changed)

    def _names_list(self, path: str, body: Any) -> Any:
        mine = {name: device for (gateway, name), device in self.names.items() if body["device"] in (gateway, device)}
        return {"names": mine, "revision": self.revision}

    def _seen(self, path: str, body: Any) -> None:
        self.seen |= body["devices"]
        self.seen_by_mqtt |= body["mqtt"]
        self.presence |= body["presence"]

    def _descriptions(self, path: str, body: Any) -> None:
        self.described += body["told"]

    def _audit(self, path: str, body: Any) -> None:
        self.audit += body["entries"]

    def _tokens_verify(self, path: str, body: Any) -> Any:
        for role, token in ROLE_TOKENS.items():
            if hashlib.sha256(token.encode()).hexdigest() == body["sha256"]:
                return {"id": role, "name": role, "role": role}
        if hashlib.sha256(SCOPED_TOKEN.encode()).hexdigest() == body["sha256"]:
            return {"id": "some", "name": "some", "role": "operator", "devices": "a query"}
        raise NotFound("no such token")

    def _devices_select(self, path: str, body: Any) -> Any:
        left = sorted(each for each in self.scope if each > body.get("after", ""))
        part = left[: min(body["limit"], 2)]
        return {"ids": part, "next": part[-1] if len(left) > len(part) else None}


class FakeCommit:
    """Keeps readings in a list; `error` is raised instead when set."""

    def __init__(self) -> None:
        self.readings: list[Reading] = []
        self.appends = 0
        self.error: Exception | None = None

    def append(self, readings: Any) -> None:
        if self.error is not None:
            raise self.error
        self.appends += 1
        self.readings += readings

    def accepted(self) -> int:
        return len(self.readings)

    def size_bytes(self) -> int:
        return 0


class World:
    """A service for the JSON family over fakes, with a real quarantine and real field types."""

    def __init__(
        self, folder: Path, protocols: dict[str, Protocol] | None = None, *, limit_bytes: int = 1024**3
    ) -> None:
        self.registry = FakeRegistry()
        self.commit = FakeCommit()
        self.field_types = FieldTypes(folder / "fieldtypes.db")
        self.quarantine = Quarantine(folder / "quarantine.db", limit_bytes=limit_bytes)
        rates = RateLimits()
        self.gate = Gate(self.registry, rates.limit_tenants)
        self.reports = Reports(self.registry)
        self.codecs = Codecs()
        intake = Intake(self.field_types, Division(self.gate, rates), self.codecs)
        self.ports = ports = Ports(self.gate, intake, self.commit, self.quarantine, self.reports, rates)
        self.service = IngestService(ports, protocols or served_by("json"))
        self.replayer = Replayer(ports, PROTOCOLS)

    def close(self) -> None:
        self.codecs.close()
        self.field_types.close()
        self.quarantine.close()


def case_folders(protocol: str) -> list[Path]:
    """Folders of authored cases, and of the shared fixtures where that folder is there."""
    folders = [*(CASES / protocol).glob("*"), *(SHARED / protocol).glob("*")]
    return sorted(folder for folder in folders if (folder / "request.json").is_file())


def load_case(folder: Path) -> tuple[bytes, dict[str, Any], dict[str, Any]]:
    """Give input, request and expectation of a case."""
    content = next(folder.glob("input.*")).read_bytes()
    name = "expected.json" if (folder / "expected.json").is_file() else "mapped.json"
    request = json.loads((folder / "request.json").read_text())
    return content, request, json.loads((folder / name).read_text())
