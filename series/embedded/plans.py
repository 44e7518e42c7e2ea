"""How points of one form become rows: types checked and values encoded at once. Pure; knows no files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any

from series.embedded.days import Target
from series.embedded.values import ENCODERS, FLOAT, PYTHON_TYPES, Stored, Unfit, encode, pack_extra
from wire.points import FieldValue

MAX_COLUMNS = 120  # of one measurement: each costs a byte in every row of the table, set or not


class Plan:
    """The row form of points that have exactly these fields, in this order, with these types."""

    __slots__ = (
        "_encoders",
        "_extra_at",
        "_extra_numbers",
        "_is_floats",
        "_is_plain",
        "_own_at",
        "_types",
        "names",
        "target",
    )

    def __init__(
        self,
        names: tuple[str, ...],
        codes: Sequence[int],
        numbers: Sequence[int],
        table: int,
        columns: int,
    ) -> None:
        """Lay out the row.

        Args:
            names: the fields.
            codes: their types.
            numbers: their column numbers.
            table: number of the measurement's table.
            columns: numbers from this one on have no column of their own.
        """
        self.names = names
        self._types = tuple(PYTHON_TYPES[code] for code in codes)
        self._encoders = tuple(ENCODERS[code] for code in codes)
        self._is_floats = all(code == FLOAT for code in codes)
        own = [at for at, number in enumerate(numbers) if number < columns]
        extra = [at for at, number in enumerate(numbers) if number >= columns]
        self._own_at = own if extra else None  # None: all fields have columns
        self._is_plain = self._is_floats and not extra
        self._extra_at = extra
        self._extra_numbers = [numbers[at] for at in extra]
        self.target = Target(table, tuple(numbers[at] for at in own), bool(extra))

    def encode(self, fields: dict[str, FieldValue]) -> tuple[Stored, ...] | None:
        """Encode the values; None when one is not of its field's type or cannot be kept: look at each, then."""
        values: tuple[Any, ...] = tuple(fields.values())
        if tuple(map(type, values)) != self._types:
            return None
        if self._is_floats:
            # NaN and the infinities survive a sum; a sum of huge finite floats may be infinite too, and is then
            # only looked at more closely.
            return values if isfinite(sum(values)) else None
        try:
            return tuple([encode_one(value) for encode_one, value in zip(self._encoders, values, strict=True)])
        except Unfit:
            return None

    def row(self, fields: dict[str, FieldValue]) -> tuple[Any, ...] | None:
        """Encode the values in the order of the columns; None as `encode` says."""
        if self._is_plain:  # nearly all points: no second call for them
            plain: tuple[Any, ...] = tuple(fields.values())
            return plain if tuple(map(type, plain)) == self._types and isfinite(sum(plain)) else None
        values = self.encode(fields)
        return None if values is None else self.lay_out(values)

    def lay_out(self, values: tuple[Stored, ...]) -> tuple[Any, ...]:
        """Order encoded values as the columns of the target."""
        if self._own_at is None:
            return values
        extra = {number: values[at] for at, number in zip(self._extra_at, self._extra_numbers, strict=True)}
        return (*[values[at] for at in self._own_at], pack_extra(extra))


def encode_each(values: Iterable[FieldValue]) -> tuple[Stored, ...]:
    """Encode values that `values.accept` let through."""
    return tuple([encode(value) for value in values])
