"""ThingsBoard's provisioning (`POST /api/v1/provision`) over ways of enrolment. HTTP in and out, no rules.

A provisioning key is the name or id of an enrolment token, the provisioning secret is the token itself. Read in
thingsboard/thingsboard, DeviceProvisionService and JsonConverter.
"""

from __future__ import annotations

from typing import Any

import orjson
from flask import Response

from chassis.bodies import read_body
from chassis.web import Api, Call
from devices.enrolment.service import Door
from wire.enrolment import EnrolRequest
from wire.errors import BadRequest, HeadwaterError, RetryLater, Unauthorized
from wire.topics import is_device_id

PATH = "/api/v1/provision"
BODY = {"type": "object", "description": "deviceName, provisionDeviceKey, provisionDeviceSecret"}
ANSWER = {"type": "object", "required": ["status"], "description": "status SUCCESS, FAILURE or NOT_FOUND; errorMsg"}
REFUSED = (400, 401, 403, 404, 409, 413, 429, 503)  # in ThingsBoard's form too, no problem documents
MAX_BYTES = 4096
TOKEN = "ACCESS_TOKEN"  # noqa: S105 - ThingsBoard's word for a kind of credential
_OWN = ("token", "username", "password", "clientId", "hash")  # credentials of the device's own making


def add_routes(api: Api, door: Door) -> None:
    """Declare the route."""

    @api.route("POST", PATH, "own", body=BODY, answers=dict.fromkeys((200, *REFUSED), ANSWER))
    def post_thingsboard_provision(call: Call) -> Response:
        """Register a device by an enrolment token, as ThingsBoard provisions one; the answer holds its access token."""
        try:
            key, secret, request = _read(read_body(MAX_BYTES))
            answer = door.enrol(secret, request, call.remote_ip, named=key)
        except HeadwaterError as error:
            return _refuse(error)
        assert answer.credential is not None  # who comes by a token is given one
        told = {"status": "SUCCESS", "credentialsType": TOKEN, "credentialsValue": answer.credential.bearer}
        return Response(orjson.dumps(told), mimetype="application/json")


def _read(content: bytes) -> tuple[str, str, EnrolRequest]:
    """Read the key, the secret and what the device says of itself. Raises BadRequest."""
    try:
        asked = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the request is not JSON: {error}", code="bad_syntax") from None
    if not isinstance(asked, dict):
        raise BadRequest("the request is a JSON object", code="bad_structure")
    if asked.get("credentialsType", TOKEN) != TOKEN or any(asked.get(name) for name in _OWN):
        raise BadRequest("a device is given its access token, it does not bring one", code="unsupported")
    key, secret = _text(asked, "provisionDeviceKey"), _text(asked, "provisionDeviceSecret")
    name = asked.get("deviceName") or None
    if name is not None and not (isinstance(name, str) and is_device_id(name)):
        raise BadRequest("deviceName: 1 to 64 of A-Z a-z 0-9 _ . - (the first no sign)", fields=["deviceName"])
    return key, secret, EnrolRequest(id=name)


def _text(asked: dict[str, Any], name: str) -> str:
    given = asked.get(name)
    if not isinstance(given, str) or not given:
        raise BadRequest(f"{name} is missing", fields=[name])
    return given


def _refuse(error: HeadwaterError) -> Response:
    """Word an error as ThingsBoard's clients read it."""
    status = "NOT_FOUND" if isinstance(error, Unauthorized) else "FAILURE"
    told = {"status": status, "errorMsg": error.detail, "code": error.code}
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, RetryLater) else {}
    return Response(orjson.dumps(told), error.status, headers, mimetype="application/json")
