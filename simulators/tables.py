"""Read a TOML table strictly: each complaint names file, key and limit, and an unknown key is one too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

_T = TypeVar("_T")
_REQUIRED: Any = object()


class ScenarioError(ValueError):
    """A scenario file that cannot be used; the text is one line for the person at the terminal."""


class Table:
    """One table of a file; `close` complains of the keys that nobody asked for."""

    def __init__(self, file: Path, content: dict[str, Any], path: str = "") -> None:
        self._file, self._content, self._path = file, content, path
        self._asked: set[str] = set()

    def __contains__(self, key: str) -> bool:
        self._asked.add(key)
        return key in self._content

    def error(self, key: str, complaint: str) -> ScenarioError:
        """Make the error that names this key."""
        return ScenarioError(f"{self._file}: {self._key(key)}: {complaint}")

    def raw(self, key: str, default: Any = _REQUIRED) -> Any:
        """Give a value as it stands."""
        self._asked.add(key)
        if key in self._content:
            return self._content[key]
        if default is _REQUIRED:
            raise self.error(key, "is missing")
        return default

    def text(self, key: str, default: Any = _REQUIRED) -> str:
        """Give a string."""
        value = self.raw(key, default)
        if not isinstance(value, str):
            raise self.error(key, f"not a text: {value!r}")
        return value

    def choice(self, key: str, options: tuple[str, ...], default: Any = _REQUIRED) -> str:
        """Give one of the words that are known."""
        value = self.text(key, default)
        if value not in options:
            raise self.error(key, f"unknown {value!r} (known: {', '.join(options)})")
        return value

    def number(self, key: str, default: Any = _REQUIRED, *, least: float | None = None) -> float:
        """Give a number of at least `least`."""
        value = self.raw(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(key, f"not a number: {value!r}")
        if least is not None and value < least:
            raise self.error(key, f"{value:g}, at least {least:g}")
        return value

    def count(self, key: str, default: Any = _REQUIRED, *, least: int = 0, most: int) -> int:
        """Give a whole number within limits."""
        value = self.raw(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(key, f"not a whole number: {value!r}")
        if not least <= value <= most:
            raise self.error(key, f"{value}, from {least} to {most}")
        return value

    def parsed(self, key: str, parse: Callable[[str], _T], default: Any = _REQUIRED) -> _T:
        """Give what a parser makes of a text or number; its ValueError becomes the complaint."""
        value = self.raw(key, default)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self.error(key, f"neither text nor number: {value!r}")
        try:
            return parse(str(value))
        except ValueError as error:
            raise self.error(key, str(error)) from error

    def table(self, key: str, default: Any = _REQUIRED) -> Table:
        """Give a table below this one."""
        return self._below(self.raw(key, default), self._key(key))

    def tables(self, key: str, *, most: int) -> list[Table]:
        """Give an array of tables (`[[key]]`); absent = empty."""
        value = self.raw(key, [])
        if not isinstance(value, list):
            raise self.error(key, f"not an array of tables: write [[{key}]]")
        if len(value) > most:
            raise self.error(key, f"{len(value)} tables, limit {most}")
        return [self._below(each, f"{self._key(key)}[{index}]") for index, each in enumerate(value)]

    def __iter__(self) -> Iterator[str]:
        self._asked |= set(self._content)  # whoever goes through all keys looks at each
        return iter(self._content)

    def close(self) -> None:
        """Complain of a key that nobody asked for.

        Raises:
            ScenarioError: there is one.
        """
        for key in self._content:
            if key not in self._asked:
                raise self.error(key, f"unknown key (known: {', '.join(sorted(self._asked))})")

    def _below(self, value: Any, path: str) -> Table:
        if not isinstance(value, dict):
            raise ScenarioError(f"{self._file}: {path}: not a table: {value!r}")
        return Table(self._file, value, path)

    def _key(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key
