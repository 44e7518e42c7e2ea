"""Import of devices from CSV: each line registers one device or says why not. Knows no HTTP and no SQL."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Protocol

from pydantic import ValidationError

from devices import credentials
from devices.rows import NewDevice, Who
from wire import clock
from wire.errors import BadRequest, Conflict, TooLarge, Unprocessable, in_words
from wire.registry import (
    CredentialCreate,
    DeviceCreate,
    ImportedCredential,
    ImportFailure,
    ImportReport,
    IssuedCredential,
)

MAX_LINES = 100_000
MAX_BYTES = 8 * 1024 * 1024
PART = 5_000  # devices a transaction: others get their turn in between
TAG_PREFIX = "tag."
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no", "")


class DeviceRows(Protocol):
    """Where devices are kept; see `devices.store.DeviceStore`."""

    def add(self, devices: Sequence[NewDevice], who: Who, action: str) -> None: ...
    def taken(self, ids: Sequence[str]) -> set[str]: ...


class Importer:
    """Registers devices in bulk; thread-safe."""

    def __init__(self, devices: DeviceRows) -> None:
        self._devices = devices

    def run(self, content: bytes, who: Who, *, is_dry: bool) -> ImportReport:
        """Register a device for each line that is right; report the others.

        Args:
            content: CSV, UTF-8, with a header of `id` and any of `type`, `gateway`, `tag.<key>`.
            who: for the audit log.
            is_dry: only report what would be.

        Raises:
            BadRequest: not CSV, not UTF-8, or a header with other columns.
            TooLarge: more than MAX_LINES lines.
        """
        report = ImportReport(dry_run=is_dry, total=0, created=0, failed=[], credentials=[])
        wanted = _parse(content, report)
        taken = self._devices.taken(list(wanted))
        for device_id in taken:
            line, _ = wanted.pop(device_id)
            report.failed.append(_exists(line, device_id))
        if is_dry:
            report.created = len(wanted)
        else:
            self._register(wanted, who, report)
        report.failed.sort(key=lambda failure: failure.line)
        return report

    def _register(self, wanted: dict[str, tuple[int, DeviceCreate]], who: Who, report: ImportReport) -> None:
        pairs = list(wanted.values())
        for start in range(0, len(pairs), PART):
            part = pairs[start : start + PART]
            try:
                self._add([device for _, device in part], who, report)
            except Conflict:  # another request took an id of this part since
                self._add_each(part, who, report)

    def _add_each(self, part: Sequence[tuple[int, DeviceCreate]], who: Who, report: ImportReport) -> None:
        for line, device in part:
            try:
                self._add([device], who, report)
            except Conflict:
                report.failed.append(_exists(line, device.id))

    def _add(self, wanted: Sequence[DeviceCreate], who: Who, report: ImportReport) -> None:
        now_ns = clock.now_ns()
        made = [(device, *credentials.issue(device.id, now_ns, CredentialCreate())) for device in wanted]
        rows = [NewDevice(device.id, device.type, device.tags, device.gateway, row) for device, _, row in made]
        self._devices.add(rows, who, "device.import")
        report.created += len(rows)
        report.credentials.extend(_told(issued) for _, issued, _ in made)


def _parse(content: bytes, report: ImportReport) -> dict[str, tuple[int, DeviceCreate]]:
    wanted: dict[str, tuple[int, DeviceCreate]] = {}
    for line, cells in _lines(content):
        report.total += 1
        try:
            device = _to_device(cells)
        except Unprocessable as error:
            shown = cells.get("id", "")[:80]
            report.failed.append(ImportFailure(line=line, id=shown, code=error.code, detail=error.detail))
            continue
        if device.id in wanted:
            detail = f"line {wanted[device.id][0]} has this id already"
            report.failed.append(ImportFailure(line=line, id=device.id, code="duplicate_id", detail=detail))
            continue
        wanted[device.id] = (line, device)
    return wanted


def _lines(content: bytes) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRequest(f"the file is not UTF-8 at byte {error.start}", code="bad_encoding") from None
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    count = 0
    try:
        header = _check_header(next(rows, []))
        for cells in rows:
            if not any(cells):
                continue
            count += 1
            if count > MAX_LINES:
                raise TooLarge(f"more than {MAX_LINES} devices in one import")
            yield rows.line_num, dict(zip(header, cells, strict=False)) | _overlong(header, cells)
    except csv.Error as error:
        raise BadRequest(f"line {rows.line_num} is not CSV: {error}", code="bad_syntax") from None


def _check_header(header: list[str]) -> list[str]:
    names = [name.strip() for name in header]
    unknown = [name for name in names if name not in ("id", "type", "gateway") and not name.startswith(TAG_PREFIX)]
    if "id" not in names or unknown or len(set(names)) != len(names):
        found = ",".join(names)[:200]
        raise BadRequest(
            f"the first line must name the columns id, type, gateway, tag.<key>, each at most once; it is {found!r}",
            code="bad_header",
        )
    return names


def _overlong(header: list[str], cells: list[str]) -> dict[str, str]:
    return {"": "more cells than the header has columns"} if len(cells) > len(header) else {}


def _to_device(cells: dict[str, str]) -> DeviceCreate:
    if "" in cells:
        raise Unprocessable(cells[""], code="bad_line")
    gateway = cells.get("gateway", "").strip().lower()
    if gateway not in _TRUE and gateway not in _FALSE:
        raise Unprocessable(f"gateway must be true or false, not {gateway[:40]!r}", code="bad_value")
    tags = {name.removeprefix(TAG_PREFIX): cell for name, cell in cells.items() if name.startswith(TAG_PREFIX) and cell}
    try:
        return DeviceCreate(id=cells.get("id", ""), type=cells.get("type") or None, tags=tags, gateway=gateway in _TRUE)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        code = "bad_id" if where == "id" else "bad_value"
        raise Unprocessable(f"{where}: {in_words(first)}", code=code) from None


def _exists(line: int, device_id: str) -> ImportFailure:
    return ImportFailure(line=line, id=device_id, code="device_exists", detail=f"device {device_id} exists already")


def _told(issued: IssuedCredential) -> ImportedCredential:
    return ImportedCredential(
        device=issued.username, username=issued.username, secret=issued.secret, bearer=issued.bearer
    )
