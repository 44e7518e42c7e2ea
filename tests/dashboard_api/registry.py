"""The real registry behind the dashboard's pages, in one process: what they ask and send is what it takes."""

from __future__ import annotations

from typing import Any

from tests.devices.running import SERVICE, Caller, Service
from wire.errors import HeadwaterError, NotFound


class RegistryPeer:
    """Calls the registry's app as `HttpPeer` calls its port; `overlay` answers instead of it, by method and path."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.overlay: dict[str, Any] = {}

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> Any:
        if f"{method} {path}" in self.overlay:
            return self.overlay[f"{method} {path}"]
        answer = Caller(self._service.app, token or SERVICE)(method, path, body)
        if answer.status_code < 400:
            return answer.json
        problem = answer.json
        error = (NotFound if answer.status_code == 404 else HeadwaterError)(problem["detail"], code=problem["code"])
        error.status = answer.status_code
        error.extra = {key: value for key, value in problem.items() if key == "fields"}
        raise error
