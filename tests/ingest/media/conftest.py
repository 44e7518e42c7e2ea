"""The media service over a registry in memory, with its own files."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.app import create_app
from ingest.config import IngestConfig
from ingest.framing import Batch, Delivery, Verdict, encode_batch
from ingest.media.config import MediaConfig
from ingest.spool.reader import SpoolReader
from tests.ingest.intake_support import SECRET, FakeRegistry
from wire import clock

T = 1_772_700_000_000_000_000


class Interrupted(io.BytesIO):
    """A body in whose midst something happens."""

    def __init__(self, content: bytes, happening: Callable[[], object]) -> None:
        super().__init__(content)
        self._happening: Callable[[], object] | None = happening

    def readinto(self, buffer: Any) -> int:
        happening, self._happening = self._happening, None
        if happening is not None:
            happening()
        return super().readinto(buffer)


class Studio:
    """The service and what its users do."""

    def __init__(self, folder: Path, registry: FakeRegistry, **settings: Any) -> None:
        self.folder = folder
        self.registry = registry
        config = IngestConfig(protocol="media", data=folder, service_token="s", spool_floor_bytes=0)
        self.app = create_app(config, registry, MediaConfig(**{"media_floor_bytes": 0} | settings))

    def post(self, content: Any, path: str = "/v1/media", device: str = "d1", **more: Any) -> Any:
        headers = {"Authorization": f"Bearer {device}.{SECRET}"} | more.pop("headers", {})
        body = {"data": content} if content is not None else {}
        return self.app.test_client().post(path, headers=headers, **body, **more)

    def stream(self, body: io.BytesIO, **environ: str) -> Any:
        """Post a body as gunicorn hands it in: read to its end, whatever was said of its length."""
        return self.post(None, input_stream=body, environ_overrides={"wsgi.input_terminated": True} | environ)

    def sweep(self, ahead_ns: int = 0) -> None:
        parts = self.app.extensions["headwater.media"]
        parts.sweep.run(parts.blobs, parts.thumbnails, clock.now_ns() + ahead_ns)

    def get(self, path: str, role: str = "viewer", method: str = "GET", **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        headers = {"Authorization": f"Bearer {role}-token"} | named
        return self.app.test_client().open(path, method=method, headers=headers)

    def batch(self, *deliveries: Delivery, session: str = "b/1") -> Verdict:
        body = encode_batch(Batch(session, list(deliveries)))
        answer = self.app.test_client().post("/internal/batch", data=body, headers={"Authorization": "Bearer s"})
        assert answer.status_code == 200, answer.text
        return Verdict(**{"endings": []} | answer.json)

    def items(self) -> list[Any]:
        return self.get("/v1/media").json["items"]

    def readings(self) -> list[Any]:
        return SpoolReader(self.folder / "spool", {}).take(1_000).readings

    def blobs(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "media/blobs").rglob("*") if path.is_file())

    def incoming(self) -> list[Path]:
        return list((self.folder / "media/incoming").iterdir())

    def close(self) -> None:
        self.app.extensions["headwater.close"]()


def delivery(content: bytes, topic: str = "devices/d1/media/front", mid: int = 7, **more: Any) -> Delivery:
    return Delivery("d1", topic, content, more.pop("received_ns", T), mid, **more)


@pytest.fixture
def studio_of(tmp_path: Path, registry: FakeRegistry) -> Iterator[Callable[..., Studio]]:
    """Open one with settings; the folder stays."""
    opened: list[Studio] = []

    def make(**settings: Any) -> Studio:
        opened.append(Studio(tmp_path, registry, **settings))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


@pytest.fixture
def studio(studio_of: Callable[..., Studio]) -> Studio:
    return studio_of()
