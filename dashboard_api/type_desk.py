"""What the pages of device types show and do, asked of the registry with the operator's own token. Knows no Flask."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from chassis.peers import HttpPeer, Peer
from wire.errors import HeadwaterError, NotFound

TYPES = "/v1/device-types"
JOBS = "/v1/jobs"
DRY_RUN = "type.dry-run"
RECENT = 100  # dry runs of all types that are looked through for those of one
COUNTED = ("name", "version", "version_id")
CHECK_S = 25.0  # a dry run reads through hours of data


@dataclass(slots=True)
class Editing:
    """A type being edited: its text, what is wrong with it by member, and what a check found."""

    name: str
    text: str
    note: str = ""
    hours: str = "24"
    faults: Mapping[str, str] = field(default_factory=dict)
    report: Mapping[str, Any] | None = None


class TypeDesk:
    """Asks and changes device types."""

    def __init__(self, devices: Peer) -> None:
        self._devices = devices
        self._patient = devices.with_timeout(CHECK_S) if isinstance(devices, HttpPeer) else devices

    def overview(self, token: str) -> dict[str, Any]:
        """Give all types briefly, and the shipped ones that are not installed."""
        items = self._ask(token, "GET", f"{TYPES}:summary")["items"]
        ready = [each for each in self._ask(token, "GET", f"{TYPES}:ready")["items"] if not each["installed"]]
        return {"items": items, "ready": ready}

    def show(self, token: str, name: str) -> dict[str, Any]:
        """Give a type with its versions; `current` None: there are only drafts.

        Raises:
            NotFound: there never was such a type.
        """
        versions = self._ask(token, "GET", f"{_path(name)}/versions")["items"]
        try:
            current = self._ask(token, "GET", _path(name))
        except NotFound:
            current = None
        return {"name": name, "versions": versions, "current": current}

    def diff(self, token: str, name: str, version: str, against: str) -> dict[str, Any]:
        """Compare two versions; an empty `against` is the one in force."""
        query = f"?against={quote(against)}" if against else ""
        found: dict[str, Any] = self._ask(token, "GET", f"{_path(name)}/versions/{quote(version, safe='')}/diff{query}")
        return found

    def edit(self, token: str, name: str, version: str) -> Editing:
        """Begin to edit a version, or the one in force; of a type with drafts alone, the newest of them.

        Raises:
            NotFound: no such type or version.
        """
        if not version:
            try:
                return Editing(name, _to_text(self._ask(token, "GET", _path(name))))
            except NotFound:
                version = str(self._ask(token, "GET", f"{_path(name)}/versions")["items"][0]["version"])
        found = self._ask(token, "GET", f"{_path(name)}/versions/{quote(version, safe='')}")
        return Editing(name, _to_text(found["spec"]))

    def check(self, token: str, editing: Editing) -> bool:
        """Check what is edited; tell whether it could be read. What is wrong with it is noted there."""
        spec = _parse(editing)
        if spec is None:
            return False
        try:
            body = {"spec": spec, "hours": _hours(editing)}
            editing.report = self._patient.call("POST", f"{_path(editing.name)}:check", body, token=token)
        except HeadwaterError as error:
            editing.faults = _faults(error, "spec.")
        return editing.report is not None

    def try_all(self, token: str, editing: Editing) -> str | None:
        """Have all readings judged by what is edited; give the job, None when something is wrong."""
        spec = _parse(editing)
        if spec is None:
            return None
        try:
            body = {"spec": spec, "hours": _hours(editing) or 24.0}
            return str(self._ask(token, "POST", f"{_path(editing.name)}:dry-run", body)["id"])
        except HeadwaterError as error:
            editing.faults = _faults(error, "spec.")
            return None

    def dry_runs(self, token: str, name: str, job_id: str) -> dict[str, Any]:
        """Give the dry runs of a type, newest first, and one of them, else the newest.

        Raises:
            NotFound: no such type, or no such run of it.
        """
        recent = self._ask(token, "GET", f"{JOBS}?kind={DRY_RUN}&limit={RECENT}")["items"]
        runs = [each for each in recent if each["spec"].get("type") == name]
        shown = runs[0] if runs else None
        if not runs:
            self._ask(token, "GET", f"{_path(name)}/versions")  # there is such a type
        if job_id:
            shown = self._ask(token, "GET", f"{JOBS}/{quote(job_id, safe='')}")
            if shown["kind"] != DRY_RUN or shown["spec"].get("type") != name:
                raise NotFound(f"no dry run {job_id[:80]!r} of {name}", code="job_not_found")
        return {"name": name, "runs": runs, "job": shown}

    def cancel(self, token: str, name: str, job_id: str) -> None:
        """Ask a dry run to end; one that is over stays as it is.

        Raises:
            NotFound: no such type, or no such run of it.
        """
        self.dry_runs(token, name, job_id)
        with suppress(HeadwaterError):
            self._ask(token, "POST", f"{JOBS}/{quote(job_id, safe='')}:cancel")

    def save(self, token: str, editing: Editing, *, activate: bool) -> int | None:
        """Write what is edited down, in force at once or not; give its number, None when something is wrong with it."""
        spec = _parse(editing)
        if spec is None:
            return None
        try:
            made = self._ask(token, "POST", f"{_path(editing.name)}/versions", {"spec": spec, "note": editing.note})
            if activate:
                self._ask(token, "POST", f"{_path(editing.name)}:activate", {"version": made["version"]})
        except HeadwaterError as error:
            editing.faults = _faults(error, "spec.")
            return None
        return int(made["version"])

    def act(self, token: str, name: str, deed: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Activate, unschedule or roll back."""
        found: dict[str, Any] = self._ask(token, "POST", f"{_path(name)}:{deed}", dict(body))
        return found

    def install(self, token: str, names: list[str]) -> dict[str, Any]:
        """Install types that come with the platform."""
        found: dict[str, Any] = self._ask(token, "POST", f"{TYPES}:install", {"names": names})
        return found

    def _ask(self, token: str, method: str, path: str, body: Any = None) -> Any:
        return self._devices.call(method, path, body, token=token)


def _hours(editing: Editing) -> float:
    hours = float(editing.hours) if editing.hours.replace(".", "", 1).isdecimal() else 24.0
    return min(hours, 744.0)


def _path(name: str) -> str:
    return f"{TYPES}/{quote(name, safe='')}"


def _to_text(spec: Mapping[str, Any]) -> str:
    """Write a spec as people do: without what says nothing. A limit of 0 says something, and so does an empty rate."""
    short = {key: value for key, value in spec.items() if key not in COUNTED and _says(value)}
    if spec.get("rate_limit") == "":
        short["rate_limit"] = ""
    fields = {
        name: {key: each for key, each in members.items() if _says(each)} for name, members in spec["fields"].items()
    }
    return json.dumps(short | {"fields": fields}, indent=2, ensure_ascii=False)


def _says(value: Any) -> bool:
    return value is not None and value is not False and value not in ("", [])


def _parse(editing: Editing) -> Any:
    try:
        return json.loads(editing.text)
    except ValueError as error:
        editing.faults = {"": f"not JSON: {error}"}
        return None


def _faults(error: HeadwaterError, prefix: str) -> dict[str, str]:
    """Give what is wrong by member, as the editor shows it; what belongs to no member is under the empty name."""
    listed = error.extra.get("fields") or list(error.fields)
    members = [str(name).removeprefix(prefix) for name in listed]
    sentences = error.detail.split("; ")
    if len(members) != len(sentences):
        return {"": error.detail}
    return {
        name: text.removeprefix(prefix).removeprefix(f"{name}: ") for name, text in zip(members, sentences, strict=True)
    }
