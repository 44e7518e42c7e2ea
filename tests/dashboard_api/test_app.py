from __future__ import annotations

from pathlib import Path

import pytest

from chassis import settings
from compose.ports import pick
from dashboard_api.app import create_app
from dashboard_api.config import DashboardConfig


def test_starts_without_any_neighbour(tmp_path: Path):
    nowhere = f"127.0.0.1:{pick()}"
    config = DashboardConfig(
        data=tmp_path,
        devices_url=f"http://{nowhere}",
        ingest_url=f"http://{nowhere}",
        broker=nowhere,
        service_token="s",
    )

    app = create_app(config)

    try:
        client = app.test_client()
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").json == {"service": "dashboard", "ready": True}
        assert client.get("/login").status_code == 200
        assert client.get("/v1/query/latest", headers={"Authorization": "Bearer x"}).status_code == 503
    finally:
        app.extensions["headwater.workers"].stop()


def test_bad_setting_stops_the_start_with_its_name():
    with pytest.raises(settings.SettingsError, match="HEADWATER_PORT"):
        settings.load(DashboardConfig, environ={"HEADWATER_PORT": "many"})
