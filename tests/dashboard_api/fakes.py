"""Stand-ins for the dashboard's neighbours: a dict-backed store, and one program that plays registry and ingest."""

from __future__ import annotations

import base64
import math
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import orjson

from chassis.tokens import hash_token
from devices.query.parser import parse
from devices.query.tree import Compare, Contains, Every, Is, Node, Not, OneOf
from series.port import AggregateQuery, AggregateRow, Capabilities, Page, RangeQuery
from wire.clock import NS_PER_S, format_ns, now_ns
from wire.errors import BadRequest, HeadwaterError, NotFound, PeerUnavailable, StoreUnavailable
from wire.points import FieldValue, Point

SERVICE_TOKEN = "service-token-of-the-test"
TOKENS = {"viewer": "viewer-token", "operator": "operator-token", "admin": "admin-token", "platform": "platform-token"}
PASSWORD = "correct horse"

FNS = {
    "mean": lambda found: sum(found) / len(found),
    "min": min,
    "max": max,
    "sum": sum,
    "count": len,
    "first": lambda found: found[0],
    "last": lambda found: found[-1],
}


@dataclass
class MemoryReader:
    """The reading half of a store over a list of points."""

    points: list[Point] = field(default_factory=list)
    is_away: bool = False
    capabilities: Capabilities = field(default_factory=Capabilities)

    def latest(self, devices=(), fields=(), *, limit=1_000, cursor=None, tenant="default") -> Page:
        newest: dict[tuple[str, str, str], tuple[int, FieldValue]] = {}
        for point in self._chosen(devices, tenant):
            for name, value in point.fields.items():
                key = (point.device, point.measurement, name)
                if (not fields or name in fields) and newest.get(key, (-1, 0))[0] <= point.time_ns:
                    newest[key] = (point.time_ns, value)
        keys = sorted(key for key in newest if cursor is None or key[0] > cursor)[:limit]
        points = [Point(d, m, newest[d, m, f][0], {f: newest[d, m, f][1]}) for d, m, f in keys]
        return Page(points, keys[-1][0] if len(keys) == limit else None)

    def range(self, query: RangeQuery) -> Page:
        start = 0 if query.cursor is None else self._offset(query.cursor)
        found = self._within(query)[start:]
        more = str(start + query.limit) if len(found) > query.limit else None
        return Page(found[: query.limit], more)

    def count(self, query: RangeQuery) -> int:
        return len(self._within(query))

    def aggregate(self, query: AggregateQuery) -> list[AggregateRow]:
        buckets: dict[tuple[int, str], dict[str, list[FieldValue]]] = {}
        for point in self._within(query):
            group = point.device if query.group_of is None else query.group_of.get(point.device)
            if group is None:
                continue
            start_ns = point.time_ns // query.every_ns * query.every_ns
            for name in query.fields:
                if name in point.fields:
                    buckets.setdefault((start_ns, group), {}).setdefault(name, []).append(point.fields[name])
        if len(buckets) > query.max_rows:
            raise BadRequest(f"{len(buckets)} rows, limit {query.max_rows}")
        return [
            AggregateRow(at, group, {name: {fn: FNS[fn](found) for fn in query.fns} for name, found in values.items()})
            for (at, group), values in sorted(buckets.items())
        ]

    def export(self, query: RangeQuery) -> Iterable[Point]:
        return self._within(query)

    def health(self) -> str:
        return "the store is away" if self.is_away else "ok"

    def close(self) -> None:
        """Nothing is open."""

    def _chosen(self, devices: Sequence[str], tenant: str) -> list[Point]:
        if self.is_away:
            raise StoreUnavailable("the store is away")
        return [p for p in self.points if p.tenant == tenant and (not devices or p.device in devices)]

    def _within(self, query: Any) -> list[Point]:
        found = [p for p in self._chosen(query.devices, query.tenant) if query.start_ns <= p.time_ns < query.end_ns]
        if query.measurement:
            found = [p for p in found if p.measurement == query.measurement]
        if query.fields:
            cut = [replace(p, fields={n: v for n, v in p.fields.items() if n in query.fields}) for p in found]
            found = [p for p in cut if p.fields]
        return sorted(found, key=lambda p: (p.time_ns, p.device))

    def _offset(self, cursor: str) -> int:
        if not cursor.isdecimal():
            raise BadRequest("not a cursor of ours")
        return int(cursor)


NUMBERS_NOTHING = {"missing": 0, "duplicates": 0, "boots": [], "dropped": {"boots": 0, "missing": 0, "duplicates": 0}}


def delivery(*boots: dict[str, Any], dropped: int = 0) -> dict[str, Any]:
    plain = {"boot_id": "17", "is_current": True, "first": 1, "contiguous_to": 9, "newest": 5120, "missing": 0,
             "missing_ranges": [], "is_truncated": False, "duplicates": 0, "restarts": 0, "jumps": 0,
             "began": "2026-01-02T03:04:05Z", "seen": "2026-01-02T03:04:05Z"}  # fmt: skip
    told = [plain | boot for boot in boots]
    return {"missing": sum(boot["missing"] for boot in told), "duplicates": 0, "boots": told,
            "dropped": {"boots": dropped, "missing": 3 * dropped, "duplicates": dropped}}  # fmt: skip


def enrolment(**members: Any) -> dict[str, Any]:
    plain = {"id": "e1", "name": "hall", "kind": "token", "ids": "*", "type": None, "tags": {}, "policy": "auto",
             "max_devices": 1, "enrolled": 0, "expires": None, "state": "open"}  # fmt: skip
    return plain | members


@dataclass
class Platform:
    """Registry and ingest in one, as the dashboard sees them."""

    devices: dict[str, dict[str, Any]] = field(default_factory=dict)
    types: dict[str, dict[str, Any]] = field(default_factory=dict)
    quarantine: list[dict[str, Any]] = field(default_factory=list)
    versions: dict[int, dict[str, Any]] = field(default_factory=dict)  # of types, by the number that points carry
    ledger: dict[str, float] = field(default_factory=dict)
    deliveries: dict[str, dict[str, Any]] = field(default_factory=dict)  # by device: /v1/devices/{id}/ledger
    sessions: dict[str, str] = field(default_factory=lambda: {v: k for k, v in TOKENS.items()})  # token -> role
    described: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # by device
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    replays: list[Any] = field(default_factory=list)
    held: list[dict[str, Any]] = field(default_factory=list)
    children: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # children that new rules do not allow
    topics: list[dict[str, Any]] = field(default_factory=list)
    ways: list[dict[str, Any]] = field(default_factory=list)
    authorities: list[dict[str, Any]] = field(default_factory=list)
    away: set[str] = field(default_factory=set)  # "devices", "ingest"
    scopes: dict[str, str] = field(default_factory=dict)  # token -> the query of its devices
    limited: dict[str, int] = field(default_factory=dict)  # token -> readers that its tenant, "small", may have

    protocols: list[dict[str, Any]] = field(default_factory=list)
    protocols_refused: list[dict[str, Any]] = field(default_factory=list)
    groups: list[Any] = field(default_factory=lambda: [group("north"), group("pumps", query="type=pump")])
    bulks: list[Any] = field(default_factory=list)

    def answer(self, method: str, path: str, body: Any, token: str) -> Any:
        parts = urlsplit(path)
        self.calls.append((method, parts.path, token))
        query = {name: found[-1] for name, found in parse_qs(parts.query).items()}
        is_ingest = parts.path.startswith(("/v1/quarantine", "/v1/ledger", "/v1/telemetry", "/v1/protocols"))
        is_ingest = is_ingest or parts.path.endswith("/ledger")
        if ("ingest" if is_ingest else "devices") in self.away:
            raise PeerUnavailable("away for the test")
        if parts.path.startswith("/internal/") and token != SERVICE_TOKEN:
            raise HeadwaterError("not a service", code="unauthorized")
        if parts.path.startswith("/v1/") and token not in self.sessions:
            raise HeadwaterError("not an operator", code="unauthorized")
        routes = {
            "/internal/tokens:verify": self._verify,
            "/internal/operators:login": self._login,
            "/internal/operators:logout": self._logout,
            "/internal/directory": self._directory,
            "/internal/type-versions": lambda query, _body: {"items": [self.versions[int(query["id"])]]},
            "/internal/devices:select": self._select,
            "/internal/descriptions:lookup": self._described,
            "/v1/devices": self._list,
            "/v1/holds": lambda _query, _body: {"items": self.held, "next": None},
            "/v1/holds:accept": self._decide,
            "/v1/holds:refuse": self._decide,
            "/v1/enrolments": self._enrolments,
            "/v1/certificate-authorities": lambda _query, _body: {"items": self.authorities},
            "/v1/devices:count": self._count,
            "/v1/devices:bulk": self._bulk,
            "/v1/jobs/j1": self._job,
            "/v1/groups": self._groups,
            "/v1/quarantine": self._quarantine,
            "/v1/quarantine:replay": self._replay,
            "/v1/ledger": lambda _query, _body: self.ledger,
            "/v1/protocols": lambda _query, _body: {"items": self.protocols, "refused": self.protocols_refused},
            "/openapi.json": self._openapi,
        }
        if parts.path in routes:
            return routes[parts.path](query, body)
        return self._rest(method, parts.path)

    def _rest(self, method: str, path: str) -> Any:
        if path.endswith(("/groups", "/usage")):
            return {"items": ["north"] if path.endswith("/groups") else []}
        if path.startswith("/v1/devices/") and ((path.count("/") > 3 and not path.endswith("/ledger")) or ":" in path):
            return self._access(path)
        if method == "DELETE" and path.startswith("/v1/groups/"):
            self.groups = [each for each in self.groups if each["name"] != path.rpartition("/")[2]]
            return None
        if path.endswith("/ledger"):
            return self.deliveries.get(path.split("/")[3], NUMBERS_NOTHING)
        if path.startswith(("/v1/enrolments/", "/v1/certificate-authorities/")):
            return None
        return self._one(path)

    def _access(self, path: str) -> Any:
        answers: dict[str, Any] = {
            "gateway": {
                "children": "hold",
                "child_type": None,
                "child_tags": {},
                "prefixes": ["a-"],
                "max_children": 5,
                "left_out": len(self.left_out),
                "left_out_children": self.left_out,
            },
            "children": {"items": self.children, "next": None},
            "parent": {"gateway": "gw-7"},
            "topics": {"items": self.topics},
            "credentials": {"credential": {"secret": "secret-shown-once"}},
            "credentials:rotate": {"credential": {"secret": "secret-shown-once"}},
        }
        return answers.get(path.split("/", 4)[-1]) if path.count("/") > 3 else None

    def _verify(self, _query: Any, body: Any) -> Any:
        for token, role in self.sessions.items():
            if hash_token(token) == body["sha256"]:
                more = {"tenant": "small", "feed_readers": self.limited[token]} if token in self.limited else {}
                more |= {"devices": self.scopes[token]} if token in self.scopes else {}
                return {"id": f"id-{role}", "name": role, "role": role} | more
        raise NotFound("no such token")

    def _login(self, _query: Any, body: Any) -> Any:
        if body["password"] == "too often":
            refused = HeadwaterError("too many attempts", code="rate_limited")
            refused.status = 429
            raise refused
        if body["password"] != PASSWORD:
            refused = HeadwaterError("wrong name or password", code="unauthorized")
            refused.status = 401
            raise refused
        token = f"session-{len(self.sessions)}"
        self.sessions[token] = "admin"
        return {"token": token, "role": "admin", "name": body["name"], "expires": format_ns(now_ns() + 3600 * NS_PER_S)}

    def _decide(self, _query: Any, body: Any) -> Any:
        decided = [item["id"] for item in self.held if item["id"] in body["ids"]]
        self.held = [item for item in self.held if item["id"] not in decided]
        return {"decided": decided}

    def _enrolments(self, _query: Any, body: Any) -> Any:
        if body is None:
            return {"items": self.ways}
        if body["name"] and body["name"] in [way["name"] for way in self.ways]:
            refused = HeadwaterError(f"enrolment {body['name']} exists already", code="enrolment_exists")
            refused.status = 409
            raise refused
        self.ways.append(enrolment(**body))
        return self.ways[-1] | {"secret": "secret-shown-once"}

    def _logout(self, _query: Any, body: Any) -> Any:
        self.sessions = {t: role for t, role in self.sessions.items() if hash_token(t) != body["sha256"]}

    def _directory(self, query: Any, _body: Any) -> Any:
        ids = sorted(self.devices)
        start, limit = int(query.get("cursor", 0)), int(query.get("limit", 100))
        shown = [
            {k: self.devices[i].get(k) for k in ("id", "type", "tags", "online")} for i in ids[start : start + limit]
        ]
        return {"devices": shown, "next": str(start + limit) if start + limit < len(ids) else None, "revision": 1}

    def _select(self, _query: Any, body: Any) -> Any:
        trees = [parse(body[name], now_ns()) for name in ("query", "scope")]
        found = [i for i, d in sorted(self.devices.items()) if all(holds(tree, d) for tree in trees)]
        ids = [i for i in found if i > body.get("after", "")]
        return {"ids": ids[: body["limit"]], "next": ids[body["limit"] - 1] if len(ids) > body["limit"] else None}

    def _found(self, query: Any) -> list[Any]:
        tree = parse(query.get("q", ""), now_ns())
        return [d for _id, d in sorted(self.devices.items()) if holds(tree, d)]

    def _count(self, query: Any, _body: Any) -> Any:
        return {"count": len(self._found(query)), "is_exact": False}

    def _groups(self, _query: Any, body: Any) -> Any:
        if body is not None:
            parse(body["query"] or "", now_ns())
            self.groups.append(group(body["name"], query=body["query"], description=body["description"]))
        return {"items": self.groups}

    def _bulk(self, _query: Any, body: Any) -> Any:
        found = self._found({"q": body["query"]})
        if body["preview"]:
            return {"count": len(found), "examples": found[:10]}
        self.bulks.append(body)
        return self._job({}, None)

    def _job(self, _query: Any, _body: Any) -> Any:
        failures = [{"id": "pump-20", "code": "device_retired", "detail": "retired, which is for good"}]
        return {"id": "j1", "state": "done", "done": 4, "failed": 1, "total": 5, "error": None,
                "result": {"failures": failures}}  # fmt: skip

    def _described(self, _query: Any, body: Any) -> Any:
        return {"items": {i: self.described[i] for i in body["devices"] if i in self.described}}

    def _list(self, query: Any, _body: Any) -> Any:
        found = self._found(query)
        start, limit = int(query.get("cursor", 0)), int(query.get("limit", 100))
        return {
            "items": found[start : start + limit],
            "next": str(start + limit) if start + limit < len(found) else None,
        }

    def _quarantine(self, query: Any, _body: Any) -> Any:
        found = [q for q in self.quarantine if query.get("device", q["device"]) == q["device"]]
        found = [q for q in found if query.get("code", q["code"]) == q["code"]]
        start, limit = int(query.get("cursor", 0)), int(query.get("limit", 100))
        return {
            "items": found[start : start + limit],
            "next": str(start + limit) if start + limit < len(found) else None,
        }

    def _replay(self, _query: Any, body: Any) -> Any:
        self.replays.append(body)
        return {"replayed": len(body.get("ids", [1, 2])), "failed": [], "more": False}

    def _openapi(self, _query: Any, _body: Any) -> Any:
        body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/NewDevice"}}}}
        operation = {"summary": "Register a device", "tags": ["devices"], "x-access": "operator", "requestBody": body}
        member = {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}}
        return {
            "info": {"title": "Headwater: devices"},
            "paths": {"/v1/devices": {"post": operation | {"responses": {"201": {"description": "Done"}}}}},
            "components": {"schemas": {"NewDevice": member, "Row": {"type": "string"}}},
        }

    def _one(self, path: str) -> Any:
        kind, _, name = path.removeprefix("/v1/").partition("/")
        known = {"devices": self.devices, "device-types": self.types}.get(kind, {})
        if unquote(name) not in known:
            raise NotFound(f"no {kind} {unquote(name)}")
        return known[unquote(name)]


def holds(tree: Node, device: Any) -> bool:
    """What these tests need of the query language."""
    match tree:
        case Every(parts):
            return all(holds(part, device) for part in parts)
        case Not(part):
            return not holds(part, device)
        case Contains(text):
            return text.lower() in " ".join([device["id"], device["type"] or "", *device["tags"].values()]).lower()
        case Is("online"):
            return bool(device["online"])
        case OneOf(_, values):
            return device["id"] in values
        case Compare(field, _, value):
            known = device["tags"].get(field.key) if field.name == "tag" else device[field.name]
            return known == value or (field.name, value) == ("id", "*")
    raise AssertionError(tree)


def group(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "description": "", "query": None, "count": 3, "is_exact": True} | more


@dataclass
class FakePeer:
    """The platform without a socket."""

    platform: Platform

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> Any:
        return self.platform.answer(method, path, body, token or SERVICE_TOKEN)


def serve(platform: Platform) -> ThreadingHTTPServer:
    """Answer for the platform over HTTP; `shutdown` and `server_close` end it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = orjson.loads(self.rfile.read(length)) if length else None
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            try:
                status, content = 200, platform.answer(self.command, self.path, body, token)
            except HeadwaterError as error:
                status, content = (error.status if error.code != "unauthorized" else 401), error.to_problem()
            encoded = content if isinstance(content, bytes) else orjson.dumps(content)
            self.send_response(status)
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


def device(name: str, **given: Any) -> dict[str, Any]:
    found = {"id": name, "type": "greenhouse", "tags": {}, "state": "active", "gateway": False, "online": True}
    return found | {"last_seen": format_ns(now_ns()), "created": format_ns(now_ns() - 86400 * NS_PER_S)} | given


def quarantined(number: str, device: str, raw: bytes, **given: Any) -> dict[str, Any]:
    found = {
        "id": number,
        "device": device,
        "protocol": "json",
        "code": "bad_syntax",
        "detail": "line 1: expected a value",
    }
    return found | {"time": format_ns(now_ns() - 90 * NS_PER_S), "raw_base64": base64.b64encode(raw).decode()} | given


def demo() -> tuple[Platform, MemoryReader]:
    """A small fleet that looks real: greenhouses, a cold chain, pumps; an hour of points."""
    platform, reader = Platform(), MemoryReader()
    platform.types = {
        "greenhouse": {"name": "greenhouse", "fields": {
            "temperature": {"type": "float", "unit": "°C", "description": "Air, two metres above ground"},
            "humidity": {"type": "float", "unit": "%"}, "co2": {"type": "int", "unit": "ppm"},
            "vent_open": {"type": "bool", "unit": ""}}},
        "cold-chain": {"name": "cold-chain", "fields": {
            "temperature": {"type": "float", "unit": "°C"}, "door": {"type": "string", "unit": ""},
            "battery": {"type": "float", "unit": "V"}}},
        "pump": {"name": "pump", "fields": {
            "pressure": {"type": "float", "unit": "bar"}, "flow": {"type": "float", "unit": "l/min"},
            "rpm": {"type": "int", "unit": "1/min"}}},
    }  # fmt: skip
    kinds = ["greenhouse"] * 8 + ["cold-chain"] * 7 + ["pump"] * 5
    for at, kind in enumerate(kinds):
        name = f"{kind}-{at + 1:02d}"
        is_online = at not in (3, 11)
        seen_ns = now_ns() - (1 if is_online else 3 * 3600 + at) * NS_PER_S
        site = ("north", "south", "harbour")[at % 3]
        platform.devices[name] = device(name, type=kind, tags={"site": site, "line": str(at % 4)}, online=is_online,
                                        last_seen=format_ns(seen_ns), gateway=at == 15)  # fmt: skip
        reader.points += [point_of(name, kind, seen_ns - s * NS_PER_S, at) for s in range(0, 3600, 5)]
    platform.devices["pump-18"]["state"] = "disabled"
    platform.ledger = {"received": 184_213, "accepted": 184_170, "stored": 184_101, "pending": 12, "duplicates": 57,
                       "quarantined": 41, "refused": 2, "lag_s": 0.04, "missing": 12, "devices_with_gaps": 3}  # fmt: skip
    platform.deliveries["greenhouse-02"] = delivery(
        {"missing": 12, "missing_ranges": [[7, 7], [100, 110]], "duplicates": 3, "seen": seen_iso()},
        {"boot_id": "16", "is_current": False, "restarts": 1, "missing": 400, "missing_ranges": [[2, 401]] * 9},
        dropped=4,
    )
    platform.quarantine = [
        quarantined("901", "greenhouse-02", b'{"temperature": 21.5, "humidity": }'),
        quarantined(
            "902",
            "cold-chain-10",
            b'{"temperature": "warm", "door": "closed"}',
            code="type_conflict",
            detail="temperature: a string, but the device type says float",
        ),
        quarantined("903", "pump-17", bytes(range(128, 255)) * 3, code="bad_encoding", detail="not UTF-8 at byte 0"),
        quarantined(
            "904",
            "greenhouse-02",
            b'{"x": "<img src=x onerror=document.title=1>"}',
            code="unknown_field",
            detail='<script>document.title="owned"</script>',
        ),
    ]
    return platform, reader


def seen_iso() -> str:
    return format_ns(now_ns() - NS_PER_S)


def point_of(name: str, kind: str, time_ns: int, at: int = 0) -> Point:
    """Give a believable point of a kind of device at a time."""
    phase = time_ns / NS_PER_S / 600 + at
    noise = math.sin(phase * 37.7) * math.sin(phase * 91.3)
    fields: dict[str, FieldValue]
    if kind == "greenhouse":
        fields = {"temperature": round(22 + 3 * math.sin(phase) + noise * 0.3, 2),
                  "humidity": round(61 + 8 * math.cos(phase) + noise, 1),
                  "co2": int(640 + 120 * math.sin(phase / 2) + 15 * noise), "vent_open": math.sin(phase) > 0.4}  # fmt: skip
    elif kind == "cold-chain":
        fields = {"temperature": round(-18.5 + 0.8 * math.sin(phase) + noise * 0.2, 2),
                  "door": "closed" if math.sin(phase) < 0.9 else "open", "battery": round(3.6 - at * 0.01, 3)}  # fmt: skip
    else:
        fields = {"pressure": round(4.2 + 0.4 * math.sin(phase) + noise * 0.05, 3),
                  "flow": round(118 + 14 * math.sin(phase * 1.3) + noise * 2, 1), "rpm": int(1450 + 30 * noise)}  # fmt: skip
    return Point(name, "telemetry", time_ns, fields)
