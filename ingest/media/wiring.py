"""Wiring of media into an ingestion service: its routes in place of those of telemetry, its files, its sweep."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from chassis.reach import Reaches
from chassis.settings import SettingsError
from chassis.web import Api
from chassis.workers import Workers
from ingest.door import Door
from ingest.media import api as media_api
from ingest.media import reading
from ingest.media.blobs import Arrivals, Blobs, DiskBlobs
from ingest.media.config import MediaConfig
from ingest.media.index import Index
from ingest.media.service import MediaService
from ingest.media.sweep import TURN_S, Sweep
from ingest.media.thumbnails import Thumbnails
from ingest.ports import Ports
from ingest.service import IngestService
from wire import clock


@dataclass(slots=True, frozen=True)
class Parts:
    """What media are made of, and what closes it."""

    index: Index
    blobs: Blobs
    thumbnails: Thumbnails
    sweep: Sweep
    closing: ExitStack


def add(api: Api, service: IngestService, ports: Ports, reaches: Reaches, config: MediaConfig, folder: Path) -> Parts:
    """Declare the routes and begin to sweep. `folder` is made."""
    folder.mkdir(parents=True, exist_ok=True)
    closing, workers = ExitStack(), Workers()
    index = Index(folder)
    closing.callback(index.close)
    blobs, arrivals = open_blobs(config, folder), Arrivals(folder, config.media_floor_bytes)
    thumbnails = Thumbnails(folder, blobs.read, index.turns, config.media_pixels)
    media = MediaService(config, ports, index, blobs, arrivals, service.refuse)
    media_api.add_doors(api, media, Door(service, ports.gate, ports.reports), ports)
    reading.add_routes(api, reading.Shelf(index, reaches), blobs, thumbnails, ports.reports)
    sweep = Sweep(ports.gate, index, media, arrivals)
    workers.every("media-sweep", TURN_S, lambda: sweep.run(blobs, thumbnails, clock.now_ns()))
    closing.callback(workers.stop)
    return Parts(index, blobs, thumbnails, sweep, closing)


def open_blobs(config: MediaConfig, folder: Path) -> Blobs:
    """Open where blobs are kept. Raises SettingsError."""
    if config.media_url == "file:":
        return DiskBlobs(folder)
    try:
        from ingest.media.s3 import S3Blobs

        return S3Blobs(config.media_url, config.media_access_key, config.media_secret_key)
    except ImportError:
        raise SettingsError("HEADWATER_MEDIA_URL: s3:// needs the Python package minio in .venv") from None
    except ValueError as error:
        raise SettingsError(f"HEADWATER_MEDIA_URL: {error}") from None
