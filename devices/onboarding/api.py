"""The public route of imports: HTTP in and out, no rules."""

from __future__ import annotations

from flask import Response, request

from chassis.bodies import read_body
from chassis.web import Api, Call, answer
from devices.api import who
from devices.onboarding import lines
from devices.onboarding.importing import Importer, Queue
from wire.devices import Model
from wire.errors import UnsupportedMedia
from wire.jobs import JobView
from wire.registry import ImportReport

IMPORT = "/v1/devices:import"
CSV_TYPES = ("text/csv", "application/csv", "application/octet-stream", "text/plain", "")
UNSAID_TYPES = ("application/octet-stream", "text/plain", "")  # what begins with { is NDJSON then: no header does
NDJSON_TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl")
CSV_SCHEMA = {
    "type": "string",
    "description": "header id,type,gateway,parent,tag.<key>...,attr.<key>...; or, as application/x-ndjson, a device as"
    " JSON in each line; 100,000 lines, 32 MiB at most",
}


class ImportQuery(Model):
    """How to import."""

    dry_run: bool = False
    job: bool = False
    resume: bool = False


def add_routes(api: Api, importer: Importer, queue: Queue) -> None:
    """Declare the route."""
    answers = {200: ImportReport, 202: JobView}
    declared = {"body": CSV_SCHEMA, "media_type": "text/csv", "query": ImportQuery, "answers": answers}

    @api.route("POST", IMPORT, "operator", **declared)
    def import_devices(call: Call) -> ImportReport | Response:
        """Register a device for each line of a CSV or NDJSON file; good lines count beside bad ones."""
        if request.mimetype not in CSV_TYPES + NDJSON_TYPES:
            raise UnsupportedMedia(
                f"devices are imported as text/csv or application/x-ndjson, not {request.mimetype[:80]}"
            )
        query, content = call.query, read_body(lines.MAX_BYTES)
        is_ndjson = request.mimetype in NDJSON_TYPES or (request.mimetype in UNSAID_TYPES and content[:1] == b"{")
        found = lines.read(content, is_ndjson=is_ndjson)
        if not query.job:
            return importer.run(found, who(call), is_dry=query.dry_run)
        by = (call.actor.tenant, who(call))
        job = importer.start(queue, (content, found), by, dry_run=query.dry_run, resume=query.resume)
        return answer(job, 202)
