"""The two ways to ask SQLite, typed. Knows no table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import apsw


def select(connection: apsw.Connection, sql: str, bindings: Any = ()) -> Iterator[tuple[Any, ...]]:
    """Run a query and give its rows as they come."""
    return cast("Iterator[tuple[Any, ...]]", connection.execute(sql, bindings))


def number(connection: apsw.Connection, sql: str, bindings: Any = ()) -> int:
    """Run a query that gives one integer."""
    return int(next(select(connection, sql, bindings))[0])
