"""Routes of deletion: HTTP in and out, no rules."""

from __future__ import annotations

from flask import Response

from chassis.web import Api, Call, answer
from devices.api import DEVICE, who
from devices.erasure.service import Erasures, Queue
from devices.service import Registry
from wire.devices import Model
from wire.erasures import Erased, ErasureList
from wire.jobs import JobView


class DeleteQuery(Model):
    """What to delete."""

    data: bool = False


def add_routes(api: Api, registry: Registry, erasures: Erasures, queue: Queue) -> None:
    """Declare the routes."""

    @api.route("DELETE", DEVICE, "operator", query=DeleteQuery, answers={204: None, 202: JobView}, reach="path")
    def delete_device(call: Call) -> Response:
        """Delete a device and its credentials, and cut it off; with `data` its readings too, as a job."""
        device_id = call.path["device_id"]
        if call.query.data:
            return answer(erasures.start(queue, device_id, (call.actor.tenant, who(call))), 202)
        registry.remove(device_id, who(call))
        return Response(status=204)

    @api.route("GET", "/internal/erasures", "service", callers=("writer",))
    def list_erasures(_call: Call) -> ErasureList:
        """Tell the writer whose data must go."""
        return ErasureList(items=erasures.wanted())

    @api.route("POST", "/internal/erasures/<job_id>:done", "service", callers=("writer",), body=Erased)
    def note_erased(call: Call) -> None:
        """Hear from the writer that it is gone, or why not."""
        erasures.note(call.path["job_id"], call.body)
