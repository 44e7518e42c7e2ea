"""The pages of device types: list, versions with comparison, editor with dry run. Every form works without a script."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from flask import Response, redirect, render_template, request

from chassis import web
from chassis.web import Api, Call
from dashboard_api.type_desk import Editing, TypeDesk
from wire import clock
from wire.errors import Conflict, HeadwaterError, NotFound, Unprocessable
from wire.topics import is_device_id

TEXT_MAX = 256 * 1024
EMPTY = '{\n  "fields": {}\n}'


def add_routes(api: Api, desk: TypeDesk) -> None:
    """Add the pages."""
    _add_list(api, desk)
    _add_type(api, desk)
    _add_editor(api, desk)
    _add_dry_runs(api, desk)


def _add_list(api: Api, desk: TypeDesk) -> None:
    @api.route("GET", "/types", "viewer")
    def types(call: Call) -> Response:
        """All device types, and those that come with the platform."""
        return _page("types.html", call, **desk.overview(_token()))

    @api.route("POST", "/types/install", "operator")
    def install(_call: Call) -> Response:
        """Install types that come with the platform."""
        names = request.form.getlist("name")[:100]
        if names:
            desk.install(_token(), names)
        return _to("/types")

    @api.route("GET", "/types/new", "operator")
    def new_type(call: Call) -> Response:
        """The editor, on a type that is not there yet."""
        name = request.args.get("name", "").strip()
        return _page("type_edit.html", call, editing=Editing(name, EMPTY)) if is_device_id(name) else _to("/types")


def _add_type(api: Api, desk: TypeDesk) -> None:
    @api.route("GET", "/types/<name>", "viewer")
    def one_type(call: Call) -> Response:
        """One device type: its fields, all versions, and two of them compared."""
        name, version, against = call.path["name"], request.args.get("version", ""), request.args.get("against", "")
        shown = desk.show(_token(), name)
        diff, fault = None, request.args.get("fault", "")[:500]
        if version:
            try:
                diff = desk.diff(_token(), name, version, against)
            except HeadwaterError as error:
                fault = error.detail
        return _page("type.html", call, shown=shown, diff=diff, fault=fault, done=request.args.get("done", "")[:100])

    @api.route("POST", "/types/<name>/act", "operator")
    def act(call: Call) -> Response:
        """Activate, schedule, unschedule or roll back a version, then show what became of it."""
        name, form = call.path["name"], request.form
        try:
            return _to_type(name, done=_act(desk, name, form))
        except NotFound:
            raise
        except (Conflict, ValueError) as error:
            return _to_type(name, fault=str(error))


def _act(desk: TypeDesk, name: str, form: Mapping[str, str]) -> str:
    """Do what a form of a type's page asks for; give what to say of it."""
    deed, version = form.get("deed", ""), form.get("version", "")
    if deed not in _DONE or not version.isdecimal():
        raise Unprocessable("choose what to do, and with which version")
    body: dict[str, Any] = {"version": int(version)}
    if deed == "activate" and form.get("at"):
        body["at"] = clock.format_ns(clock.parse_time(_as_utc(form["at"])))
    try:
        desk.act(_token(), name, deed, body)
    except NotFound:
        raise
    except HeadwaterError as error:  # a peer's refusal: of what was asked, not of who asked
        raise Conflict(error.detail) from error
    return _DONE[deed].format(version=version)


def _add_editor(api: Api, desk: TypeDesk) -> None:
    @api.route("GET", "/types/<name>/edit", "operator")
    def edit(call: Call) -> Response:
        """The editor, on the version in force or another."""
        editing = desk.edit(_token(), call.path["name"], request.args.get("version", ""))
        return _page("type_edit.html", call, editing=editing)

    @api.route("POST", "/types/<name>/edit", "operator")
    def save(call: Call) -> Response:
        """Check what was edited, or write it down; what is wrong is shown beside it."""
        form = request.form
        editing = Editing(
            call.path["name"], form.get("text", "")[:TEXT_MAX], form.get("note", "")[:256], form.get("hours", "24")[:8]
        )
        deed = form.get("deed", "check")
        if deed == "check":
            desk.check(_token(), editing)
            return _edit_page(call, editing)
        if deed == "dry-run":
            job = desk.try_all(_token(), editing)
            return _edit_page(call, editing) if job is None else _to_run(editing.name, job)
        version = desk.save(_token(), editing, activate=deed == "activate")
        if version is None:
            return _edit_page(call, editing)
        state = "in force" if deed == "activate" else "a draft"
        return _to_type(editing.name, done=f"Version {version} is {state}.")


def _add_dry_runs(api: Api, desk: TypeDesk) -> None:
    @api.route("GET", "/types/<name>/dry-runs", "viewer")
    def dry_runs(call: Call) -> Response:
        """The dry runs of a type, and what one of them found so far."""
        return _page("type_runs.html", call, **desk.dry_runs(_token(), call.path["name"], request.args.get("job", "")))

    @api.route("POST", "/types/<name>/dry-runs", "operator")
    def cancel_run(call: Call) -> Response:
        """End a dry run."""
        job_id = request.form.get("job", "")
        desk.cancel(_token(), call.path["name"], job_id)
        return _to_run(call.path["name"], job_id)


def _to_run(name: str, job_id: str) -> Response:
    return _to(f"/types/{quote(name, safe='')}/dry-runs?{urlencode({'job': job_id})}")


_DONE = {
    "activate": "Version {version} is in force or scheduled.",
    "unschedule": "Version {version} is a draft again.",
    "rollback": "The content of version {version} is in force again.",
}


def _as_utc(text: str) -> str:
    """Read what a browser's date field gives, which has no zone, as UTC."""
    return text if text.endswith("Z") or "+" in text else f"{text}:00Z" if text.count(":") == 1 else f"{text}Z"


def _edit_page(call: Call, editing: Editing) -> Response:
    page = _page("type_edit.html", call, editing=editing)
    page.status_code = Unprocessable.status if editing.faults else 200
    return page


def _to_type(name: str, **told: str) -> Response:
    return _to(f"/types/{quote(name, safe='')}?{urlencode(told)}")


def _to(path: str) -> Response:
    response = redirect(path, 303, Response)
    assert isinstance(response, Response)
    return response


def _page(template: str, call: Call, **shown: Any) -> Response:
    return Response(render_template(template, operator=call.actor, here="types", **shown))


def _token() -> str:
    return web.presented_token()[0]
