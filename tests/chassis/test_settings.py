from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from chassis import settings


class Config(BaseModel):
    model_config = ConfigDict(frozen=True)

    port: int = 1
    token: str = ""


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    (tmp_path / "headwater.toml").write_text('port = 2\ntoken = "toml"\n')
    (tmp_path / "secret").write_text("from-file\n")
    return {"HEADWATER_CONFIG": str(tmp_path / "headwater.toml")} | more


def test_sources_outrank_each_other_in_the_stated_order(tmp_path: Path) -> None:
    secret = str(tmp_path / "secret")

    assert settings.load(Config, environ={}) == Config()
    assert settings.load(Config, environ=environment(tmp_path)).token == "toml"
    assert settings.load(Config, environ=environment(tmp_path, HEADWATER_TOKEN_FILE=secret)).token == "from-file"
    both = environment(tmp_path, HEADWATER_TOKEN_FILE=secret, HEADWATER_TOKEN="env")
    assert settings.load(Config, environ=both).token == "env"
    assert settings.load(Config, {"token": "flag"}, both).token == "flag"


def test_trace_tells_where_each_value_came_from(tmp_path: Path) -> None:
    found = settings.trace(Config, {"port": 9}, environment(tmp_path, HEADWATER_TOKEN="env"))

    assert found == {"port": (9, "--port"), "token": ("env", "HEADWATER_TOKEN")}


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"HEADWATER_PORT": "many"}, "HEADWATER_PORT"),
        ({"HEADWATER_TOKEN_FILE": "/nonexistent/file"}, "HEADWATER_TOKEN_FILE"),
        ({"HEADWATER_CONFIG": "/nonexistent/file"}, "HEADWATER_CONFIG"),
    ],
)
def test_a_bad_setting_is_named(environ: dict[str, str], named: str) -> None:
    with pytest.raises(settings.SettingsError, match=named):
        settings.load(Config, environ=environ)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("127.0.0.1:1884", ("127.0.0.1", 1884)), ("broker", ("broker", 1883)), ("[::1]:2883", ("::1", 2883))],
)
def test_address_is_taken_apart(text: str, wanted: tuple[str, int]) -> None:
    assert settings.split_address(text, 1883) == wanted


@pytest.mark.parametrize("text", ["host:port", "host:99999", "mqtt://host", ":1883"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        settings.split_address(text, 1883)
