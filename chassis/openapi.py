"""OpenAPI 3.1 documents from declared operations and pydantic's own JSON Schemas. Knows no Flask."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Protocol

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema

REF = "#/components/schemas/{model}"
_CONVERTER = re.compile(r"<(?:[a-z]+:)?([a-z_]+)>")


class Declared(Protocol):
    """The part of an operation that documents it."""

    @property
    def method(self) -> str: ...
    @property
    def rule(self) -> str: ...
    @property
    def access(self) -> str: ...
    @property
    def body(self) -> Any: ...
    @property
    def query(self) -> type[BaseModel] | None: ...
    @property
    def answers(self) -> Any: ...
    @property
    def summary(self) -> str: ...
    @property
    def media_type(self) -> str: ...


def document(service: str, operations: Iterable[Declared]) -> dict[str, Any]:
    """Describe the public operations of a service (those not under /internal)."""
    public = [operation for operation in operations if not operation.rule.startswith("/internal")]
    paths: dict[str, dict[str, Any]] = {}
    for operation in public:
        path = _CONVERTER.sub(r"{\1}", operation.rule)
        paths.setdefault(path, {})[operation.method.lower()] = _operation(service, operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": f"Headwater: {service}", "version": "1"},
        "paths": paths,
        "components": {
            "schemas": _schemas(public) | {"Problem": _PROBLEM},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


_PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457 problem document; branch on `code`.",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "fields": {"type": "array", "items": {"type": "string"}},
    },
}


def _operation(service: str, operation: Declared) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "summary": operation.summary,
        "tags": [service],
        "operationId": re.sub(r"[^a-z0-9]+", "_", f"{operation.method} {operation.rule}".lower()).strip("_"),
        "x-access": operation.access,
        "parameters": _parameters(operation),
        "responses": _responses(operation),
    }
    if operation.access != "public":
        shown["security"] = [{"bearer": []}]
    if operation.body is not None:
        content = {operation.media_type: {"schema": _schema(operation.body)}}
        shown["requestBody"] = {"required": True, "content": content}
    return shown


def _parameters(operation: Declared) -> list[dict[str, Any]]:
    named = _CONVERTER.findall(operation.rule)
    shown: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in named
    ]
    if operation.query is None:
        return shown
    schema = operation.query.model_json_schema()
    required = set(schema.get("required", ()))
    return shown + [
        {"name": name, "in": "query", "required": name in required, "schema": part}
        for name, part in schema.get("properties", {}).items()
    ]


def _responses(operation: Declared) -> dict[str, Any]:
    answers: dict[int, Any] = dict(operation.answers) or {200: None}
    shown: dict[str, Any] = {}
    for status, model in answers.items():
        content = {"content": {"application/json": {"schema": _schema(model)}}} if model is not None else {}
        shown[str(status)] = {"description": "Done"} | content
    problem = {"schema": {"$ref": REF.format(model="Problem")}}
    shown["default"] = {"description": "Problem document", "content": {"application/problem+json": problem}}
    return shown


def _schema(kind: Any) -> dict[str, Any]:
    if isinstance(kind, dict):
        return kind
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {"$ref": REF.format(model=kind.__name__)}
    return TypeAdapter(kind).json_schema(ref_template=REF)


def _schemas(operations: Iterable[Declared]) -> dict[str, Any]:
    kinds = [kind for operation in operations for kind in (operation.body, *dict(operation.answers).values())]
    models = {kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)}
    ordered = sorted(models, key=lambda model: model.__name__)
    if not ordered:
        return {}
    _, schema = models_json_schema([(model, "serialization") for model in ordered], ref_template=REF)
    return dict(schema.get("$defs", {}))
