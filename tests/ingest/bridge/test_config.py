"""Settings of the bridge refuse what they cannot use, naming it."""

from __future__ import annotations

import pytest

from chassis import settings
from ingest.bridge.config import BridgeConfig, split_urls


def test_urls_are_read_by_protocol():
    assert split_urls("senml=http://a:1, line=https://b:2,") == {"senml": "http://a:1", "line": "https://b:2"}
    assert split_urls("") == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("BROKER", "host:port"),
        ("BROKER", ""),
        ("INGEST_URLS", "senml"),
        ("INGEST_URLS", "senml=ftp://x"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_bad_setting_is_named(name, text):
    with pytest.raises(settings.SettingsError, match=f"HEADWATER_{name}"):
        settings.load(BridgeConfig, environ={f"HEADWATER_{name}": text, "HEADWATER_CONFIG": "/dev/null"})
