"""Import of devices: each line of a file registers one device or says why not. Knows no HTTP and no SQL.

At once, for files whose credentials fit an answer; or as a job, part by part: what a part registers and the lines of
the result that tell its secrets are committed together, so a crash neither repeats a device nor loses a secret.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import orjson

from devices import credentials
from devices.gateways.rules import Room, take
from devices.jobs.kinds import DAY_S, Job, JobFilter, Kind, Step
from devices.onboarding.lines import Line
from devices.rows import CredentialRow, NewDevice, Who
from wire import clock
from wire.errors import Conflict
from wire.gateways import GatewayRules
from wire.jobs import JobView
from wire.registry import (
    CredentialCreate,
    DeviceImport,
    ImportedCredential,
    ImportFailure,
    ImportReport,
    IssuedCredential,
)

JOB_KIND = "device.import"
PART = 500  # devices a transaction, a tenth of a second: others get their turn in between
RESULT_COLUMNS = ("line", "id", "outcome", "code", "detail", "secret")
_LOOKED_THROUGH = 200  # jobs among which an interrupted import is looked for
Effect = Callable[[Any], None]
Made = tuple[DeviceImport, IssuedCredential | None, NewDevice]  # a child has no credential


class DeviceRows(Protocol):
    """Where devices are kept; see `devices.store.DeviceStore`."""

    def add(self, devices: Sequence[NewDevice], who: Who, action: str) -> None: ...
    def adding(self, devices: Sequence[NewDevice], who: Who, action: str) -> Effect: ...
    def taken(self, ids: Sequence[str]) -> set[str]: ...


class Gateways(Protocol):
    """Tells which gateways there are; see `devices.gateways.store.GatewayStore`."""

    def rooms(self, tenant: str, ids: Iterable[str]) -> dict[str, Room | None]: ...


class JobRows(Protocol):
    """Where jobs keep their input; see `devices.jobs.store.JobStore`."""

    def read_input(self, job_id: str, number: int) -> str | None: ...


class Queue(Protocol):
    """Takes jobs; see `devices.jobs.service.Jobs`."""

    def start(
        self, kind: str, spec: dict[str, Any], by: tuple[str, Who], total: int | None = None, parts: Sequence[str] = ()
    ) -> JobView: ...
    def list(self, wanted: JobFilter) -> list[JobView]: ...


class Importer:
    """Registers devices in bulk; thread-safe."""

    def __init__(self, devices: DeviceRows, gateways: Gateways, jobs: JobRows) -> None:
        self._devices = devices
        self._gateways = gateways
        self._jobs = jobs

    def kind(self) -> Kind:
        """Describe its jobs."""
        return Kind(self._take_part, media_type="text/csv", kept_s=DAY_S, is_secret=True)

    def run(self, found: Iterable[Line], who: Who, *, is_dry: bool) -> ImportReport:
        """Register a device for each line that is right, at once; report the others.

        Raises as `lines.read`.
        """
        report = ImportReport(dry_run=is_dry, total=0, created=0, failed=[], credentials=[])
        for part in _parts(found):
            report.total += len(part)
            report.failed += [line.failure for line in part if line.failure]
            fresh = self._sift(part, report.failed, who.tenant, is_dry=is_dry)
            if is_dry:
                report.created += len(fresh)
            else:
                self._register(fresh, who, report)
        report.failed.sort(key=lambda failure: failure.line)
        return report

    def start(self, queue: Queue, found: tuple[bytes, Iterable[Line]], by: tuple[str, Who], **spec: bool) -> JobView:
        """Queue an import; with `resume`, give the one of the same file that is under way or can be fetched still.

        Args:
            queue: takes the job.
            found: the file and its lines.
            by: tenant and caller.
            spec: `dry_run`; `resume`: ids that exist are passed over instead of failing.
        """
        digest = hashlib.sha256(found[0]).hexdigest()
        if spec["resume"] and (earlier := _find_earlier(queue, by[0], digest)):
            return earlier
        parts, total = [], 0
        for part in _parts(found[1]):
            total += len(part)
            parts.append(orjson.dumps([_pack(line) for line in part]).decode())
        return queue.start(JOB_KIND, spec | {"sha256": digest}, by, total, parts)

    def _take_part(self, job: Job) -> Step:
        number = job.cursor.get("part", 0)
        content = self._jobs.read_input(job.id, number)
        head = "" if number else _to_csv([dict.fromkeys(RESULT_COLUMNS, "") | {n: n for n in RESULT_COLUMNS}])
        if content is None:
            return Step(is_last=True, output=head)
        part = [_unpack(members) for members in orjson.loads(content)]
        failed = [line.failure for line in part if line.failure]
        is_dry, made = job.spec["dry_run"], []
        fresh = self._sift(part, failed, job.who.tenant, is_dry=is_dry)
        passed = [failure for failure in failed if job.spec["resume"] and failure.code == "device_exists"]
        failed = [failure for failure in failed if failure not in passed]
        if not is_dry:
            made = _issue([device for _, device in fresh], clock.now_ns())
        secrets = {device.id: issued.secret for device, issued, _ in made if issued}
        rows = [_row(failure, "failed") for failure in failed] + [_row(failure, "existed") for failure in passed]
        outcome = "would_be_created" if is_dry else "created"
        rows += [{"line": n, "id": d.id, "outcome": outcome, "secret": secrets.get(d.id, "")} for n, d in fresh]
        counted = {"created": len(fresh), "existed": len(passed)}
        return Step(
            done=len(fresh) + len(passed),
            failed=len(failed),
            cursor={"part": number + 1},
            result={name: job.result.get(name, 0) + count for name, count in counted.items()},
            output=head + _to_csv(sorted(rows, key=lambda row: row["line"])),
            effect=self._devices.adding([row for _, _, row in made], job.who, "device.import") if made else None,
        )

    def _sift(
        self, part: Sequence[Line], failed: list[ImportFailure], tenant: str, *, is_dry: bool
    ) -> list[tuple[int, DeviceImport]]:
        """Give the lines whose ids are free, and whose parents take them; add the others to `failed`."""
        wanted = [(line, line.device) for line in part if line.device]
        taken = self._devices.taken([device.id for _, device in wanted])
        failed += [_exists(line.number, device.id) for line, device in wanted if device.id in taken]
        free = [(line, device) for line, device in wanted if device.id not in taken]
        named = {device.parent for _, device in free if device.parent}
        rooms = self._gateways.rooms(tenant, named) if named else {}
        fresh = []
        for line, device in free:
            try:
                _note(rooms, line, device, is_dry=is_dry)
                fresh.append((line.number, device))
            except Conflict as error:
                failed.append(_refused(line.number, device.id, error))
        return fresh

    def _register(self, part: list[tuple[int, DeviceImport]], who: Who, report: ImportReport) -> None:
        try:
            self._add([device for _, device in part], who, report)
        except Conflict:  # another request took an id of this part since
            self._add_each(part, who, report)

    def _add_each(self, part: Sequence[tuple[int, DeviceImport]], who: Who, report: ImportReport) -> None:
        for line, device in part:
            try:
                self._add([device], who, report)
            except Conflict as error:
                report.failed.append(_refused(line, device.id, error))

    def _add(self, wanted: Sequence[DeviceImport], who: Who, report: ImportReport) -> None:
        if not wanted:
            return
        made = _issue(wanted, clock.now_ns())
        self._devices.add([row for _, _, row in made], who, "device.import")
        report.created += len(made)
        report.credentials.extend(_told(issued) for _, issued, _ in made if issued)


def _parts(found: Iterable[Line]) -> Iterator[list[Line]]:
    whole = list(found)  # a file that is refused at its end must not have registered its beginning
    for start in range(0, len(whole), PART):
        yield whole[start : start + PART]


def _issue(wanted: Sequence[DeviceImport], now_ns: int) -> list[Made]:
    made: list[Made] = []
    for device in wanted:
        if device.parent is None:
            issued, row = credentials.issue(device.id, now_ns, CredentialCreate())
            made.append((device, issued, _new(device, row)))
        else:
            made.append((device, None, _new(device, None)))
    return made


def _new(device: DeviceImport, row: CredentialRow | None) -> NewDevice:
    terms = (device.id, device.type, device.tags, device.gateway, row)
    return NewDevice(*terms, attributes=device.attributes, parent=device.parent)


def _note(rooms: dict[str, Room | None], line: Line, device: DeviceImport, *, is_dry: bool) -> None:
    """Note a line's device as a gateway for the lines after it, or as the child of one. Raises as `take`."""
    if device.gateway:
        rooms[device.id] = Room(device.id, GatewayRules())
    if device.parent is not None:
        if is_dry and line.is_promised:  # by a line of an earlier part: it is not registered now
            rooms.setdefault(device.parent, Room(device.parent, GatewayRules()))
        take(rooms, device.parent, device.id)


def _find_earlier(queue: Queue, tenant: str, digest: str) -> JobView | None:
    for job in queue.list(JobFilter(tenant, JOB_KIND, limit=_LOOKED_THROUGH)):
        is_of_use = job.state in ("queued", "running") or (job.state == "done" and job.download is not None)
        if is_of_use and job.spec.get("sha256") == digest and not job.spec.get("dry_run"):
            return job
    return None


def _pack(line: Line) -> dict[str, Any]:
    content = line.device or line.failure
    assert content is not None
    named = {"device" if line.device else "failure": content.model_dump(exclude_unset=True)}
    return {"number": line.number, "is_promised": line.is_promised} | named


def _unpack(members: dict[str, Any]) -> Line:
    device, failure = members.get("device"), members.get("failure")
    return Line(
        members["number"],
        DeviceImport.model_validate(device) if device else None,
        ImportFailure.model_validate(failure) if failure else None,
        members.get("is_promised", False),
    )


def _row(failure: ImportFailure, outcome: str) -> dict[str, Any]:
    shown = {"line": failure.line, "id": _harmless(failure.id), "outcome": outcome}
    return shown | {"code": failure.code, "detail": _harmless(failure.detail)}


def _harmless(text: str) -> str:
    """Keep a spreadsheet from running what a file held."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _to_csv(rows: Iterable[dict[str, Any]]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, RESULT_COLUMNS, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _exists(line: int, device_id: str) -> ImportFailure:
    return ImportFailure(line=line, id=device_id, code="device_exists", detail=f"device {device_id} exists already")


def _refused(line: int, device_id: str, error: Conflict) -> ImportFailure:
    return ImportFailure(line=line, id=device_id, code=error.code, detail=error.detail)


def _told(issued: IssuedCredential) -> ImportedCredential:
    return ImportedCredential(
        device=issued.username, username=issued.username, secret=issued.secret, bearer=issued.bearer
    )
