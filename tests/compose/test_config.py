"""Settings of `headwater up`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chassis import settings
from compose.config import UpConfig, is_loopback, join, near


def load(environ: dict[str, str] | None = None, **given: Any) -> UpConfig:
    return settings.load(UpConfig, given, environ or {})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_certificate(host: str) -> None:
    assert is_loopback(host)
    assert load(bind=host).bind == host


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::", "example.org"])
def test_other_addresses_need_tls_or_an_explicit_word(host: str) -> None:
    with pytest.raises(settings.SettingsError, match="--allow-plaintext"):
        load(bind=host)

    assert load(bind=host, allow_plaintext=True).plain_mqtt_bind == host


def test_with_tls_plain_mqtt_stays_on_this_machine() -> None:
    config = load(bind="0.0.0.0", tls_cert="c.pem", tls_key="k.pem")

    assert config.has_tls
    assert config.plain_mqtt_bind == "127.0.0.1"


def test_own_certificate_counts_as_one_and_goes_with_no_other() -> None:
    assert load(bind="0.0.0.0", tls=True).plain_mqtt_bind == "127.0.0.1"
    with pytest.raises(settings.SettingsError, match="of its own"):
        load(tls=True, tls_cert="c.pem", tls_key="k.pem")


def test_certificate_without_key_is_refused() -> None:
    with pytest.raises(settings.SettingsError, match="belong together"):
        load(tls_cert="c.pem")


@pytest.mark.parametrize("bind", ["", "a b", "a;b", "1.2.3.4\nlistener 1", "$(x)"])
def test_hostile_bind_is_refused(bind: str) -> None:
    with pytest.raises(settings.SettingsError, match="bind"):
        load(bind=bind, allow_plaintext=True)


def test_no_demo_wins_over_the_environment() -> None:
    assert load({"HEADWATER_DEMO": "5"}).demo == 5
    assert load({"HEADWATER_DEMO": "5"}, demo=0).demo == 0
    assert load().demo == 20


def test_addresses_are_written_as_urls_want_them() -> None:
    assert join("::1", 80) == "[::1]:80"
    assert join(near("0.0.0.0"), 1883) == "127.0.0.1:1883"
    assert load(data="x").data == Path("x")
