"""Bulk actions: what a query finds when the action is asked for, device by device in a job. Knows no HTTP and no SQL.

Which devices are meant is settled at the start: an action may change what the query finds. Every deed is one that may
be done twice, so a turn that a crash interrupted is simply repeated. What an action can take back is taken back when
its job is cancelled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import orjson
from pydantic import TypeAdapter

from devices.jobs.kinds import Job, Kind, Step
from devices.query.tree import Node
from devices.rows import DeviceFilter, Who
from devices.service import Registry
from wire.errors import HeadwaterError, NotFound, RetryLater
from wire.finding import BulkAction, BulkPreview, BulkRequest, Membership, Update, dump
from wire.jobs import JobView

JOB_KIND = "device.bulk"
PART = 50  # devices a turn where each is a transaction of its own
PART_TOGETHER = 500  # where they share one
EXAMPLES = 10
SHOWN_FAILURES = 20  # with the job; all of them are in its output
_ACTION: TypeAdapter[Any] = TypeAdapter(BulkAction)
Do = Callable[[Sequence[str]], Sequence[object]]  # to each device; a HeadwaterError is why it failed
Deeds = Callable[[Job, Any], Do]
Undo = Callable[[Job], Step]


class Queue(Protocol):
    """Takes jobs; see `devices.jobs.service.Jobs`."""

    def start(
        self, kind: str, spec: dict[str, Any], by: tuple[str, Who], total: int | None = None, parts: Sequence[str] = ()
    ) -> JobView: ...


class Inputs(Protocol):
    """Gives the input of jobs; see `devices.jobs.store.JobStore`."""

    def read_input(self, job_id: str, number: int) -> str | None: ...


class Finder(Protocol):
    """Finds devices; see `devices.query.store.Finder`."""

    def ids(self, tenant: str, tree: Node, *, after: str = "", limit: int | None = None) -> list[str]: ...
    def count(self, tenant: str, tree: Node, at_most: int | None = None) -> int: ...


class GroupRows(Protocol):
    """Where groups are kept; see `devices.groups.store.GroupStore`."""

    def find(self, tenant: str, name: str) -> Any: ...
    def put_in(self, tenant: str, name: str, devices: Sequence[str], who: Who) -> tuple[int, Sequence[str]]: ...
    def take_out(self, tenant: str, name: str, devices: Sequence[str], who: Who) -> tuple[int, Sequence[str]]: ...


@dataclass(slots=True, frozen=True)
class More:
    """Further actions, by the name of what they do."""

    deeds: Mapping[str, Deeds]
    undo: Mapping[str, Undo]  # a turn of taking back what a cancelled job did


class Bulk:
    """Starts bulk actions and does their turns; thread-safe."""

    def __init__(self, registry: Registry, finder: Finder, groups: GroupRows, inputs: Inputs, more: More) -> None:
        self._registry = registry
        self._finder = finder
        self._groups = groups
        self._inputs = inputs
        self._more = more

    def kind(self) -> Kind:
        """Describe its jobs."""
        return Kind(self._take_part, self._take_back)

    def preview(self, tenant: str, tree: Node) -> BulkPreview:
        """Tell what an action would reach: how many, and the first of them."""
        examples = self._registry.search(tenant, DeviceFilter(tree, limit=EXAMPLES))
        return BulkPreview(count=self._finder.count(tenant, tree), examples=examples)

    def start(self, queue: Queue, wanted: BulkRequest, tree: Node, by: tuple[str, Who]) -> JobView:
        """Queue the action for all devices that the query finds now.

        Raises:
            NotFound: it is about a group that does not exist.
        """
        if isinstance(wanted.action, Membership):
            self._groups.find(by[0], wanted.action.group)
        ids = self._finder.ids(by[0], tree)
        size = PART_TOGETHER if wanted.action.do in self._more.deeds else PART
        parts = [orjson.dumps(ids[start : start + size]).decode() for start in range(0, len(ids), size)]
        return queue.start(JOB_KIND, {"query": wanted.query, "action": dump(wanted.action)}, by, len(ids), parts)

    def _take_part(self, job: Job) -> Step:
        number = job.cursor.get("part", 0)
        content = self._inputs.read_input(job.id, number)
        if content is None:
            return Step(is_last=True)
        ids: list[str] = orjson.loads(content)
        do = self._deed(_ACTION.validate_python(job.spec["action"]), job)
        failures = [
            {"id": device, "code": outcome.code, "detail": outcome.detail}
            for device, outcome in zip(ids, do(ids), strict=True)
            if isinstance(outcome, HeadwaterError)
        ]
        shown = (job.result.get("failures", []) + failures)[:SHOWN_FAILURES]
        return Step(
            done=len(ids) - len(failures),
            failed=len(failures),
            cursor={"part": number + 1},
            result={"failures": shown},
            output="".join(orjson.dumps(failure).decode() + "\n" for failure in failures),
        )

    def _take_back(self, job: Job) -> Step:
        undo = self._more.undo.get(job.spec["action"]["do"])
        return Step(is_last=True) if undo is None else undo(job)

    def _deed(self, action: Any, job: Job) -> Do:
        if action.do in self._more.deeds:
            return self._more.deeds[action.do](job, action)
        one = self._deed_of_one(action, job)
        return lambda devices: [_attempt(one, device) for device in devices]

    def _deed_of_one(self, action: Any, job: Job) -> Callable[[str], object]:
        registry, who = self._registry, job.who
        if isinstance(action, Update):
            return lambda device: registry.change(device, action.patch, who)
        if isinstance(action, Membership):
            move = self._groups.put_in if action.do == "add_to_group" else self._groups.take_out
            return lambda device: move(job.tenant, action.group, [device], who)
        if action.do == "delete":
            return partial(_delete, registry, who)
        verbs = {"disable": registry.disable, "enable": registry.enable, "retire": registry.retire}
        return lambda device: verbs[action.do](device, who)


def _attempt(do: Callable[[str], object], device: str) -> HeadwaterError | None:
    """Do it to one device; give why it failed, or None."""
    try:
        do(device)
    except RetryLater:
        raise
    except HeadwaterError as error:
        return error
    return None


def _delete(registry: Registry, who: Who, device: str) -> None:
    try:
        registry.remove(device, who)
    except NotFound:  # gone already, perhaps by this very turn before a crash
        return
