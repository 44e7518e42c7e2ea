"""A service of the platform that another asks within one process, without a socket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from flask import Flask

from wire.errors import HeadwaterError, NotFound, PeerUnavailable

REFUSED, NOT_FOUND, FAILED = 400, 404, 500


@dataclass
class AppPeer:
    """A chassis.peers.Peer over an app."""

    app: Flask
    service_token: str

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> Any:
        headers = {"Authorization": f"Bearer {token or self.service_token}"}
        given = {"data": orjson.dumps(body), "content_type": "application/json"} if body is not None else {}
        answer = self.app.test_client().open(path, method=method, headers=headers, **given)
        if answer.status_code < REFUSED:
            return orjson.loads(answer.data) if answer.data else None
        if answer.status_code >= FAILED:
            raise PeerUnavailable(answer.text)
        told = answer.json or {}
        kind = NotFound if answer.status_code == NOT_FOUND else HeadwaterError
        error = kind(told.get("detail", ""), code=told.get("code"))
        error.status = answer.status_code
        raise error
