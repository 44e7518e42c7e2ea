"""The time-series store: one port, its engines, and the functions that open them by URL."""

from __future__ import annotations

from pathlib import Path

from chassis.settings import SettingsError
from series.port import SeriesReader, SeriesWriter

ENGINES = ("embedded",)  # schemes of the `store` setting; each engine is imported only when it is opened


def open_writer(url: str, data: Path, *, retention_days: int | None = None) -> SeriesWriter:
    """Open the writing half of the engine that the URL names.

    Args:
        url: the `store` setting, such as `embedded:`.
        data: the data folder; the embedded engine keeps its files in `series/` below it.
        retention_days: what `expire` drops; None keeps everything.

    Raises:
        SettingsError: no such engine.
        StoreUnavailable: its files cannot be opened.
    """
    check_url(url)
    from series.embedded.writer import EmbeddedWriter

    return EmbeddedWriter(data / "series", retention_days=retention_days)


def open_reader(url: str, data: Path) -> SeriesReader:
    """Open the querying half of the engine that the URL names.

    Raises:
        SettingsError: no such engine.
    """
    check_url(url)
    from series.embedded.reader import EmbeddedReader

    return EmbeddedReader(data / "series")


def check_url(url: str) -> None:
    """Make sure that the `store` setting names an engine.

    Raises:
        SettingsError: it does not.
    """
    scheme, colon, rest = url.partition(":")
    if not colon or scheme not in ENGINES:
        known = ", ".join(f"{name}:" for name in ENGINES)
        raise SettingsError(f"store {url!r}: no such engine {scheme!r}; there are {known}")
    if scheme == "embedded" and rest:
        raise SettingsError(f"store {url!r}: the embedded engine takes nothing after the colon")
