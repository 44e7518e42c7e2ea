"""Deletion of a device with all its data, as a job over two processes. Knows no HTTP and no SQL.

First the device is retired: it is cut off, and its id stays taken until the end. The writer, which alone may touch the
store, asks for such devices; when the last of their readings has gone through it, it removes them from quarantine and
store and says so. Then the device is deleted, upon which the writer forgets its numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

from devices.jobs.kinds import Job, Kind, Step
from devices.rows import Who
from wire import clock
from wire.erasures import Erased, Erasure
from wire.errors import NotFound, Unprocessable
from wire.jobs import JobView
from wire.registry import DeviceView

JOB_KIND = "device.erase"
STAGES = 3  # retired, erased, deleted
LOOK_S = 2.0


class Devices(Protocol):
    """Verbs of devices; see `devices.service.Registry`."""

    def retire(self, device_id: str, who: Who) -> DeviceView: ...
    def remove(self, device_id: str, who: Who) -> None: ...


class Jobs(Protocol):
    """Where jobs are; see `devices.jobs.store.JobStore`."""

    def live(self, kind: str) -> Sequence[Job]: ...
    def amend(self, job_id: str, kind: str, news: dict[str, Any], deed: tuple[Who, str] | None = None) -> None: ...


class Queue(Protocol):
    """Takes jobs; see `devices.jobs.service.Jobs`."""

    def start(
        self, kind: str, spec: dict[str, Any], by: tuple[str, Who], total: int | None = None, parts: Sequence[str] = ()
    ) -> JobView: ...


class Erasures:
    """Starts such jobs, does their turns, and talks with the writer; thread-safe."""

    def __init__(self, devices: Devices, jobs: Jobs) -> None:
        self._devices = devices
        self._jobs = jobs

    def kind(self) -> Kind:
        """Describe its jobs."""
        return Kind(self._turn)

    def start(self, queue: Queue, device_id: str, by: tuple[str, Who]) -> JobView:
        """Queue the deletion of a device with its data; it is cut off at once.

        Raises:
            NotFound: no such device.
        """
        self._devices.retire(device_id, by[1])
        return queue.start(JOB_KIND, {"device": device_id}, by, STAGES)

    def wanted(self) -> list[Erasure]:
        """Give the devices whose data must go."""
        jobs = (job for job in self._jobs.live(JOB_KIND) if "since_ns" in job.cursor and not _is_answered(job))
        return [Erasure(id=j.id, tenant=j.tenant, device=j.spec["device"], since_ns=j.cursor["since_ns"]) for j in jobs]

    def note(self, job_id: str, erased: Erased) -> None:
        """Take the writer's answer.

        Raises:
            Conflict: the job is over.
        """
        self._jobs.amend(job_id, JOB_KIND, {"erased": erased.model_dump()})

    def _turn(self, job: Job) -> Step:
        if "since_ns" not in job.cursor:
            self._devices.retire(job.spec["device"], job.who)
            return Step(done=1, cursor={"since_ns": clock.now_ns()})
        if not _is_answered(job):
            return Step(wait_s=LOOK_S)
        erased = Erased.model_validate(job.cursor["erased"])
        if erased.refusal is not None:
            raise Unprocessable(erased.refusal, code="cannot_erase")
        with suppress(NotFound):  # deleted meanwhile: that was the aim
            self._devices.remove(job.spec["device"], job.who)
        return Step(done=STAGES - 1, result={"quarantined": erased.quarantined}, is_last=True)


def _is_answered(job: Job) -> bool:
    return "erased" in job.cursor
