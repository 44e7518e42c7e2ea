"""Settings, read once at start: command line > HEADWATER_* > *_FILE secrets > headwater.toml > default.

The only module that looks at the environment.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ValidationError

from wire.errors import in_words

PREFIX = "HEADWATER_"
CONFIG_FILE = "HEADWATER_CONFIG"  # path of headwater.toml, when it is not ./headwater.toml

M = TypeVar("M", bound=BaseModel)


def split_address(text: str, default_port: int) -> tuple[str, int]:
    """Take `host:port` apart; IPv6 addresses stand in brackets.

    Raises:
        ValueError: not an address.
    """
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.path or parts.query:
        raise ValueError(f"not host:port: {text!r}")
    return parts.hostname, parts.port or default_port


def _check_address(text: str) -> str:
    if text:
        split_address(text, 0)
    return text


Address = Annotated[str, AfterValidator(_check_address)]  # host:port, or empty


class SettingsError(Exception):
    """A setting stops the start; the text is one line that names it."""


class Origin(NamedTuple):
    """A raw value and where it came from."""

    value: Any
    source: str


def load(
    model: type[M],
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> M:
    """Build the settings model from all sources.

    Raises:
        SettingsError: a value is not legal; the text names the variable.
    """
    found = trace(model, overrides, environ)
    try:
        return model.model_validate({name: origin.value for name, origin in found.items()})
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:  # of several settings together
            raise SettingsError(in_words(first)) from None
        name = str(first["loc"][0])
        source = found[name].source if name in found else f"{PREFIX}{name.upper()}"
        raise SettingsError(f"{source}: {in_words(first)} (setting {name!r})") from None


def misspelt(models: Iterable[type[BaseModel]], environ: Mapping[str, str] | None = None) -> list[str]:
    """List what headwater.toml sets and none of the models has: a typing error would leave a default in force."""
    known = {name for model in models for name in model.model_fields}
    path, table = _read_toml(os.environ if environ is None else environ)
    return [f"{path}: there is no setting {name!r}" for name in table if name not in known]


def trace(
    model: type[BaseModel],
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> dict[str, Origin]:
    """Find each given setting of the model and its source; defaults are absent.

    Raises:
        SettingsError: a secret file or headwater.toml cannot be read.
    """
    environ = os.environ if environ is None else environ
    path, table = _read_toml(environ)
    found = {name: Origin(table[name], str(path)) for name in model.model_fields if name in table}
    for name in model.model_fields:
        variable = PREFIX + name.upper()
        if f"{variable}_FILE" in environ and f"{name}_file" not in model.model_fields:
            found[name] = Origin(_read_secret(environ[f"{variable}_FILE"], variable), f"{variable}_FILE")
        if variable in environ:
            found[name] = Origin(environ[variable], variable)
        if overrides and overrides.get(name) is not None:
            found[name] = Origin(overrides[name], f"--{name.replace('_', '-')}")
    return found


def _read_toml(environ: Mapping[str, str]) -> tuple[Path, dict[str, Any]]:
    path = Path(environ.get(CONFIG_FILE, "headwater.toml"))
    try:
        return path, tomllib.loads(path.read_text())
    except FileNotFoundError:
        if CONFIG_FILE in environ:
            raise SettingsError(f"{CONFIG_FILE}: no such file: {path}") from None
        return path, {}
    except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from None


def _read_secret(path: str, variable: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise SettingsError(f"{variable}_FILE: {error.strerror}: {path}") from None
