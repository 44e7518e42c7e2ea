"""Reads files of devices, CSV or NDJSON, into lines: each a device to register or the reason why not."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson
from pydantic import ValidationError

from wire.errors import BadRequest, TooLarge, Unprocessable, in_words
from wire.registry import DeviceImport, ImportFailure

MAX_LINES = 100_000
MAX_BYTES = 32 * 1024 * 1024
TAG_PREFIX, ATTRIBUTE_PREFIX = "tag.", "attr."
_COLUMNS = ("id", "type", "gateway", "parent")
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no", "")


class Line(NamedTuple):
    """A line of the file: one of the two is there."""

    number: int
    device: DeviceImport | None
    failure: ImportFailure | None
    is_promised: bool = False  # its parent comes earlier in the file


def read(content: bytes, *, is_ndjson: bool) -> Iterator[Line]:
    """Read a file line by line, empty ones left out; an id counts where it comes first.

    Args:
        content: UTF-8; CSV with a header of `id` and any of `type`, `gateway`, `parent`, `tag.<key>`, `attr.<key>`, or
            a body of `POST /v1/devices`, with `parent`, a line.
        is_ndjson: the latter.

    Raises:
        BadRequest: not of that form, or a header with other columns.
        TooLarge: more than MAX_LINES lines.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRequest(f"the file is not UTF-8 at byte {error.start}", code="bad_encoding") from None
    first: dict[str, int] = {}
    gateways: set[str] = set()
    for count, (number, shown, device) in enumerate(_read_json(text) if is_ndjson else _read_csv(text), 1):
        if count > MAX_LINES:
            raise TooLarge(f"more than {MAX_LINES} devices in one import")
        if isinstance(device, Unprocessable):
            yield Line(number, None, ImportFailure(line=number, id=shown[:80], code=device.code, detail=device.detail))
        elif (earlier := first.setdefault(device.id, number)) != number:
            detail = f"line {earlier} has this id already"
            yield Line(number, None, ImportFailure(line=number, id=device.id, code="duplicate_id", detail=detail))
        else:
            yield Line(number, device, None, is_promised=device.parent in gateways)
            gateways.update([device.id] if device.gateway else ())


def _read_json(text: str) -> Iterator[tuple[int, str, DeviceImport | Unprocessable]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            members: Any = orjson.loads(line)
        except orjson.JSONDecodeError:
            yield number, "", Unprocessable("the line is not JSON", code="bad_line")
            continue
        shown = str(members.get("id", "")) if isinstance(members, dict) else ""
        yield number, shown, _check(members)


def _read_csv(text: str) -> Iterator[tuple[int, str, DeviceImport | Unprocessable]]:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = _check_header(next(rows, []))
        for cells in rows:
            if any(cells):
                named = dict(zip(header, cells, strict=False))
                yield rows.line_num, named.get("id", ""), _to_device(named, is_overlong=len(cells) > len(header))
    except csv.Error as error:
        raise BadRequest(f"line {rows.line_num} is not CSV: {error}", code="bad_syntax") from None


def _check_header(header: list[str]) -> list[str]:
    names = [name.strip() for name in header]
    unknown = [name for name in names if name not in _COLUMNS and not name.startswith((TAG_PREFIX, ATTRIBUTE_PREFIX))]
    if "id" not in names or unknown or len(set(names)) != len(names):
        found = ",".join(names)[:200]
        raise BadRequest(
            f"the first line must name {', '.join(_COLUMNS)}, tag.<key>, attr.<key>, each at most once;"
            f" it is {found!r}",
            code="bad_header",
        )
    return names


def _to_device(cells: dict[str, str], *, is_overlong: bool) -> DeviceImport | Unprocessable:
    if is_overlong:
        return Unprocessable("more cells than the header has columns", code="bad_line")
    gateway = cells.get("gateway", "").strip().lower()
    if gateway not in _TRUE and gateway not in _FALSE:
        return Unprocessable(f"gateway must be true or false, not {gateway[:40]!r}", code="bad_value")
    given: dict[str, Any] = {name: cells[name] for name in ("type", "parent") if cells.get(name)}
    attributes = {key: _scalar(cell) for key, cell in _prefixed(cells, ATTRIBUTE_PREFIX).items()}
    given |= {"tags": _prefixed(cells, TAG_PREFIX), "attributes": attributes}
    return _check(given | {"id": cells.get("id", ""), "gateway": gateway in _TRUE})


def _prefixed(cells: dict[str, str], prefix: str) -> dict[str, str]:
    """Give the filled cells of the columns with a prefix, by what follows it."""
    return {name.removeprefix(prefix): cell for name, cell in cells.items() if name.startswith(prefix) and cell}


def _scalar(cell: str) -> Any:
    """Read an attribute's cell: a number, true or false as JSON writes them, anything else is text."""
    try:
        value = orjson.loads(cell)
    except orjson.JSONDecodeError:
        return cell
    return value if isinstance(value, bool | int | float) else cell


def _check(members: Any) -> DeviceImport | Unprocessable:
    try:
        device = DeviceImport.model_validate(members)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "line"
        code = "bad_id" if where == "id" else "bad_value"
        return Unprocessable(f"{where}: {in_words(first)}", code=code)
    if device.gateway and device.parent is not None:
        return Unprocessable("parent: a gateway is seen through no other", code="not_a_child")
    return device
