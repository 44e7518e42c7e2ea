"""One OpenAPI document of the whole platform, merged from what each service says of itself, and its page."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from flask import Flask, Response, render_template

from chassis import openapi, web
from chassis.peers import Peer
from chassis.web import Api, Call
from wire.errors import HeadwaterError

FRESH_S = 60.0
RETRY_S = 5.0  # while a service is missing from the document
METHODS = ("get", "post", "put", "patch", "delete")
SERVICE = "dashboard"
FEED_PATH = "/v1/feed"
_FEED: dict[str, Any] = {  # OpenAPI has no word for frames, so the description says it
    "summary": "Live points over a websocket",
    "description": 'First frame: {"subscribe": {"devices": [..], "query": "..", "fields": [..]}}, empty means all; a'
    ' later one replaces it. Answers: {"points": [..]}, below 60 kB each. Slow readers get only the newest values.',
    "tags": [SERVICE],
    "operationId": "get_v1_feed",
    "x-access": "viewer",
    "security": [{"bearer": []}],
    "responses": {"101": {"description": "Switching protocols"}},
}


class Documents:
    """Merges the documents; those of absent services are left out until they answer."""

    def __init__(self, api: Api, peers: Mapping[str, Peer]) -> None:
        self._api = api
        self._peers = peers
        self._lock = threading.Lock()  # guards _merged, _until_s
        self._merged: dict[str, Any] = {}
        self._until_s = 0.0

    def merged(self) -> dict[str, Any]:
        """Give the merged document, up to a minute old."""
        with self._lock:
            if time.monotonic() >= self._until_s:
                self._merged, is_whole = self._merge()
                self._until_s = time.monotonic() + (FRESH_S if is_whole else RETRY_S)
            return self._merged

    def _merge(self) -> tuple[dict[str, Any], bool]:
        own = [operation for operation in self._api.operations if operation.rule.startswith("/v1/")]
        merged = openapi.document(SERVICE, own)
        merged["paths"][FEED_PATH] = {"get": _FEED}
        merged["info"] = {"title": "Headwater", "version": "1"}
        is_whole = True
        for peer in self._peers.values():
            try:
                document = peer.call("GET", "/openapi.json")
            except HeadwaterError:
                is_whole = False
                continue
            _join(merged, document)
        merged["paths"] = dict(sorted(merged["paths"].items()))
        return merged, is_whole


def add_routes(api: Api, documents: Documents) -> None:
    """Add the page of all operations to the API."""

    @api.route("GET", "/docs", "viewer")
    def docs(call: Call) -> Response:
        """All operations of the platform, readable."""
        groups = grouped(documents.merged())
        return Response(render_template("docs.html", groups=groups, operator=call.actor, here="docs"))


def install(app: Flask, documents: Documents) -> None:
    """Let /openapi.json of this service, which is the gateway's, tell of all services."""
    app.view_functions["openapi"] = lambda: web.answer(documents.merged())


def grouped(document: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Give the operations by service, each with what the page shows of it."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method in methods:
                operation = methods[method]
                tag = (operation.get("tags") or ["other"])[0]
                groups.setdefault(tag, []).append(_shown(document, path, method, operation))
    return dict(sorted(groups.items()))


def _shown(document: Mapping[str, Any], path: str, method: str, operation: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "path": path,
        "method": method.upper(),
        "summary": operation.get("summary", ""),
        "description": operation.get("description", ""),
        "access": operation.get("x-access", ""),
        "parameters": [
            {
                "name": parameter["name"],
                "place": parameter["in"],
                "kind": _kind(parameter.get("schema") or {}),
                "is_required": bool(parameter.get("required")),
                "default": (parameter.get("schema") or {}).get("default"),
            }
            for parameter in operation.get("parameters") or ()
        ],
        "body": _members(document, _content_schema(operation.get("requestBody") or {})),
        "answers": [(status, _content_name(answer)) for status, answer in (operation.get("responses") or {}).items()],
    }


def _members(document: Mapping[str, Any], schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    schema = _resolve(document, schema)
    required = schema.get("required") or ()
    return [
        {"name": name, "kind": _kind(part), "is_required": name in required, "default": part.get("default")}
        for name, part in (schema.get("properties") or {}).items()
    ]


def _resolve(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    found: Mapping[str, Any] = document["components"]["schemas"].get(name, schema) if name else schema
    return found


def _content_schema(part: Mapping[str, Any]) -> Mapping[str, Any]:
    for content in (part.get("content") or {}).values():
        schema: Mapping[str, Any] = content.get("schema") or {}
        return schema
    return {}


def _content_name(answer: Mapping[str, Any]) -> str:
    schema = _content_schema(answer)
    return str(schema.get("$ref", "")).rpartition("/")[2] or _kind(schema)


def _kind(schema: Mapping[str, Any]) -> str:
    """Name a schema in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items') or {})}"
    parts = [_kind(part) for part in schema.get("anyOf") or schema.get("oneOf") or ()]
    return " or ".join(part for part in parts if part != "null") or str(schema.get("type", ""))


def _join(merged: dict[str, Any], document: Mapping[str, Any]) -> None:
    """Add a service's paths and schemas; a schema of the same name but other content gets the service's name."""
    paths, schemas = document.get("paths") or {}, (document.get("components") or {}).get("schemas") or {}
    service = str(document.get("info", {}).get("title", "")).rpartition(" ")[2].replace("-", "_") or "other"
    known = merged["components"]["schemas"]
    renamed = {name: f"{service}_{name}" for name, schema in schemas.items() if known.get(name, schema) != schema}
    for name, schema in schemas.items():
        known[renamed.get(name, name)] = _rename(schema, renamed)
    for path, methods in paths.items():
        merged["paths"].setdefault(path, {}).update(_rename(methods, renamed))


def _rename(part: Any, renamed: Mapping[str, str]) -> Any:
    if isinstance(part, list):
        return [_rename(each, renamed) for each in part]
    if not isinstance(part, dict):
        return part
    changed = {key: _rename(value, renamed) for key, value in part.items()}
    prefix, _, name = str(part.get("$ref", "")).rpartition("/")
    if name in renamed:
        changed["$ref"] = f"{prefix}/{renamed[name]}"
    return changed
