"""A dry run of a version on all readings of the last hours, as a job. Knows no HTTP and no SQL.

Devices are taken some hundreds at a time: first their readings are counted, day by day, then judged by ingestion, slice
by slice, then what waits of them. So what must be remembered stays small, whatever was sent, and each turn is short. A
turn that a crash interrupted is done again: it changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from chassis.peers import Peer
from devices.jobs.kinds import Job, Kind, Step
from devices.rows import Who
from devices.types.rules import demand_sound
from devices.types.service import DeviceTypes, demand_name
from wire import clock
from wire.devices import DeviceType
from wire.dry_runs import (
    MAX_DEVICES,
    Counted,
    DeviceVerdict,
    DryRunReport,
    DryRunRequest,
    Slice,
    WaitingSlice,
    Worst,
)
from wire.errors import Conflict, Unprocessable
from wire.jobs import JobView
from wire.schemas import MAX_EXAMPLES, Example

JOB_KIND = "type.dry-run"
MAX_LIVE = 4  # of a tenant: they take turns with all other long work
WORST = 20
EXAMPLES_OF_CODE = 5
DAY_NS = 86_400 * clock.NS_PER_S
HOUR_NS = 3_600 * clock.NS_PER_S
REST_S = 0.1  # between turns, for ingestion


class DeviceIds(Protocol):
    """Knows which devices have a type; see `devices.types.store.TypeStore`."""

    def devices_of(self, tenant: str, name: str, limit: int, after: str = "") -> Sequence[str]: ...


class Jobs(Protocol):
    """Where jobs and their input are; see `devices.jobs.store.JobStore`."""

    def live(self, kind: str) -> Sequence[Job]: ...
    def read_input(self, job_id: str, number: int) -> str | None: ...


class Queue(Protocol):
    """Takes jobs; see `devices.jobs.service.Jobs`."""

    def start(
        self, kind: str, spec: dict[str, Any], by: tuple[str, Who], total: int | None = None, parts: Sequence[str] = ()
    ) -> JobView: ...


@dataclass(slots=True)
class _Run:
    """A job with what it is about, as a turn finds it."""

    job: Job
    spec: dict[str, Any]
    named: list[str] | None
    report: DryRunReport
    at: dict[str, Any]  # phase, after, place, and the verdicts on the devices at hand


class DryRuns:
    """Starts dry runs and does their turns; thread-safe."""

    def __init__(self, types: DeviceTypes, devices: DeviceIds, jobs: Jobs, ingest: Peer) -> None:
        self._types = types
        self._devices = devices
        self._jobs = jobs
        self._ingest = ingest

    def kind(self) -> Kind:
        """Describe its jobs."""
        return Kind(self._turn)

    def start(self, queue: Queue, name: str, wanted: DryRunRequest, by: tuple[str, Who]) -> JobView:
        """Queue a dry run.

        Raises:
            NotFound: no such version.
            Unprocessable: both a spec and a version are given, or none; it contradicts itself; it is about no device.
            Conflict: MAX_LIVE of the tenant have not ended.
        """
        tenant, name = by[0], demand_name(name)
        spec = self._types.one_of(tenant, name, wanted.spec, wanted.version)
        demand_sound(spec)
        if not wanted.devices and not self._devices.devices_of(tenant, name, 1):
            raise Unprocessable(f"no device has the type {name}: name some", code="no_devices", fields=["devices"])
        if sum(job.tenant == tenant for job in self._jobs.live(JOB_KIND)) >= MAX_LIVE:
            raise Conflict(f"{MAX_LIVE} dry runs have not ended", code="too_many_dry_runs")
        shown = {"type": name, "version": wanted.version, "hours": wanted.hours, "sample": wanted.sample}
        tried = DeviceType(name=name, **spec.model_dump()).model_dump(mode="json")
        part = orjson.dumps({"spec": tried, "devices": sorted(set(wanted.devices)) if wanted.devices else None})
        return queue.start(JOB_KIND, shown, by, parts=[part.decode()])

    def _turn(self, job: Job) -> Step:
        run = self._open(job)
        chunk = self._chunk(run)
        if not chunk:
            if run.at["phase"] == "judge":
                return Step(total=job.done, result=run.report.model_dump(mode="json"), is_last=True)
            counted = round(run.report.stored * run.report.sample)
            return Step(total=counted, cursor=_begin("judge"), wait_s=REST_S)
        if run.at["phase"] == "count":
            return self._count(run, chunk)
        return self._judge(run, chunk) if run.at["phase"] == "judge" else self._judge_waiting(run, chunk)

    def _open(self, job: Job) -> _Run:
        content = self._jobs.read_input(job.id, 0)
        if content is None:
            raise Conflict("the job is over", code="job_over")
        asked = orjson.loads(content)
        if not job.result:
            start_ns = job.created_ns - int(job.spec["hours"] * HOUR_NS)
            report = DryRunReport(start=start_ns, end=job.created_ns, sample=job.spec["sample"])
        else:
            report = DryRunReport.model_validate(job.result)
        return _Run(job, asked["spec"], asked["devices"], report, job.cursor or _begin("count"))

    def _chunk(self, run: _Run) -> list[str]:
        """Give the devices at hand: the next ones behind those that are done."""
        after = run.at["after"]
        if run.named is not None:
            return [each for each in run.named if each > after][:MAX_DEVICES]
        return list(self._devices.devices_of(run.job.tenant, run.spec["name"], MAX_DEVICES, after))

    def _count(self, run: _Run, chunk: list[str]) -> Step:
        """Count a day of these devices."""
        report = run.report
        start_ns = run.at["place"] or report.start
        end_ns = min(start_ns + DAY_NS, report.end)
        body = {"start": clock.format_ns(start_ns), "end": clock.format_ns(end_ns)}
        report.stored += Counted.model_validate(self._ask("count", run, chunk, body)).readings
        at = run.at | ({"place": end_ns} if end_ns < report.end else {"place": None, "after": chunk[-1]})
        return Step(cursor=at, result=report.model_dump(mode="json"))

    def _judge(self, run: _Run, chunk: list[str]) -> Step:
        report = run.report
        body = {
            "spec": run.spec, "sample": report.sample, "cursor": run.at["place"] or "",
            "start": clock.format_ns(report.start), "end": clock.format_ns(report.end),
        }  # fmt: skip
        found = Slice.model_validate(self._ask("judge", run, chunk, body))
        for device, news in found.devices.items():
            run.at["stored"][device] = _join(run.at["stored"].get(device), news)
        judged = sum(each.readings for each in found.devices.values())
        report.readings += judged
        report.refused_readings += sum(each.refused for each in found.devices.values())
        report.lost_fields += found.lost_fields
        _count_codes(report, found.devices)
        _show(report, found.examples)
        at = run.at | {"place": found.next} | ({"phase": "waiting"} if found.next is None else {})
        return Step(done=judged, cursor=at, result=report.model_dump(mode="json"), wait_s=REST_S)

    def _judge_waiting(self, run: _Run, chunk: list[str]) -> Step:
        body = {"spec": run.spec, "before": run.at["place"]}
        found = WaitingSlice.model_validate(self._ask("judge-waiting", run, chunk, body))
        for device, news in found.devices.items():
            run.at["waiting"][device] = _join(run.at["waiting"].get(device), news)
            run.report.waiting += news.readings
            run.report.would_pass += news.readings - news.refused
        _show(run.report, [each for each in found.examples if each.code])
        if found.next is not None:
            at = run.at | {"place": found.next}
            return Step(cursor=at, result=run.report.model_dump(mode="json"), wait_s=REST_S)
        lines = _close(run)
        output = "".join(f"{line.model_dump_json()}\n" for line in lines)
        at = _begin("judge") | {"after": chunk[-1]}
        return Step(cursor=at, result=run.report.model_dump(mode="json"), output=output)

    def _ask(self, what: str, run: _Run, chunk: list[str], body: dict[str, Any]) -> Any:
        body |= {"devices": chunk, "tenant": run.job.tenant}
        return self._ingest.call("POST", f"/internal/types:{what}", body)


def _begin(phase: str) -> dict[str, Any]:
    """Give where a phase begins; `stored` and `waiting` hold the verdicts on the devices at hand."""
    return {"phase": phase, "after": "", "place": None, "stored": {}, "waiting": {}}


def _join(known: list[Any] | None, news: DeviceVerdict) -> list[Any]:
    """Add a slice's verdict on a device to that of the slices before: readings, refused, faults by reason."""
    readings, refused, codes = known or [0, 0, {}]
    return [readings + news.readings, refused + news.refused, dict(Counter(codes) + Counter(news.codes))]


def _count_codes(report: DryRunReport, verdicts: dict[str, DeviceVerdict]) -> None:
    for each in verdicts.values():
        for code, count in each.codes.items():
            report.codes[code] = report.codes.get(code, 0) + count


def _show(report: DryRunReport, examples: list[Example]) -> None:
    for each in examples:
        of_code = sum(shown.code == each.code for shown in report.examples)
        if of_code < EXAMPLES_OF_CODE and len(report.examples) < MAX_EXAMPLES:
            report.examples.append(each)


def _close(run: _Run) -> list[Worst]:
    """Count the devices at hand, now that all of them was judged; give those with something to tell."""
    stored, waiting, report = run.at["stored"], run.at["waiting"], run.report
    report.devices += len(stored)
    lines = []
    for device in sorted(stored.keys() | waiting.keys()):
        readings, refused, codes = stored.get(device, [0, 0, {}])
        entries, failing, _ = waiting.get(device, [0, 0, {}])
        report.refused_devices += bool(refused)
        for code in codes:
            report.code_devices[code] = report.code_devices.get(code, 0) + 1
        if refused or entries:
            lines.append(Worst(
                device=device, readings=readings, refused=refused, codes=codes, waiting=entries,
                would_pass=entries - failing,
            ))  # fmt: skip
    report.worst = sorted(report.worst + lines, key=lambda each: (-each.refused, each.device))[:WORST]
    return lines
