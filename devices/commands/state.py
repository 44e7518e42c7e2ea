"""The life of a command. Pure: what each event makes of it; no store, no HTTP, no broker.

    queued -> sent -> delivered -> succeeded | failed
    queued, sent, delivered -> expired (deadline) | cancelled

`sent` = handed to the broker while the device was connected and listening, or in an answer to its poll. `delivered` =
the device itself said that it has it; nothing else makes a command delivered.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import orjson

from devices.query.tree import EVERY_DEVICE, Node
from wire import clock
from wire.clock import NS_PER_S
from wire.control import CommandState
from wire.errors import BadRequest, NotFound, TooLarge, Unprocessable

ReplyState = Literal["accepted", "succeeded", "failed"]
MAX_BYTES = 32 * 1024  # of params and of a result, as JSON
MAX_DEPTH = 16  # of both, as of twins and readings
MAX_ERROR = 1_000  # characters of a device's own words
BACK_OFF_S, MAX_BACK_OFF_S = 2.0, 60.0
FORM_S = 60.0  # how long a form may wait for the broker; its service words it anew then
NEVER_NS = 2**62  # due only when something happens


@dataclass(slots=True, frozen=True)
class Wanted:
    """A command that somebody wants sent."""

    device: str
    name: str
    params: str  # JSON
    qos: int = 1
    deadline_s: float = 300.0
    retries: int = 5
    idempotency_key: str | None = None
    job: str | None = None
    deadline_ns: int | None = None  # instead of deadline_s, when others have the same


@dataclass(slots=True, frozen=True)
class Command:
    """A command as stored."""

    id: str
    tenant: str
    device: str
    seq: int
    name: str
    params: str
    qos: int
    state: CommandState
    active: bool
    created_ns: int
    deadline_ns: int
    due_ns: int
    retry_ns: int
    tries: int
    max_tries: int
    sent_ns: int | None
    delivered_ns: int | None
    ended_ns: int | None
    idempotency_key: str | None
    actor: str
    job: str | None
    via: str | None
    result: str | None
    error: str | None
    revision: int
    form: str | None = None  # JSON of a Form that is to be published


@dataclass(slots=True, frozen=True)
class CommandFilter:
    """Which commands to list; every given member must hold."""

    tenant: str
    device: str | None = None
    state: str | None = None
    name: str | None = None
    job: str | None = None
    before_seq: int | None = None
    limit: int = 100
    among: Node = EVERY_DEVICE  # of the devices that this finds


@dataclass(slots=True, frozen=True)
class Reply:
    """What a device, or the service that speaks for it, says of a command."""

    state: ReplyState
    result: str | None = None  # JSON
    error: str | None = None


@dataclass(slots=True, frozen=True)
class Claimed:
    """A command that a protocol's service is to word, and what the device is known by there."""

    command: Command
    gateway: str | None
    names: list[str]


@dataclass(slots=True, frozen=True)
class HandedOver:
    """What a protocol's service says that it sent."""

    id: str
    device: str
    attempt: int | None = None  # which, as it was claimed; None: the newest
    retry_s: float | None = None  # how long an answer may take; None: as over MQTT


@dataclass(slots=True, frozen=True)
class Form:
    """A command as a protocol's devices read it, for the broker."""

    topic: str
    payload: str  # Base64
    via: str  # the protocol
    qos: int = 0
    retry_s: float | None = None  # as of HandedOver


def begin(wanted: Wanted, tenant: str, actor: str, now_ns: int) -> Command:
    """Make a queued command; its place in the order comes with keeping it."""
    deadline_ns = now_ns + int(wanted.deadline_s * NS_PER_S) if wanted.deadline_ns is None else wanted.deadline_ns
    return Command(
        id=f"c{now_ns:016x}{secrets.token_hex(4)}",
        tenant=tenant,
        device=wanted.device,
        seq=0,
        name=wanted.name,
        params=wanted.params,
        qos=wanted.qos,
        state="queued",
        active=True,
        created_ns=now_ns,
        deadline_ns=deadline_ns,
        due_ns=now_ns,
        retry_ns=now_ns,
        tries=0,
        max_tries=1 + wanted.retries,
        sent_ns=None,
        delivered_ns=None,
        ended_ns=None,
        idempotency_key=wanted.idempotency_key,
        actor=actor,
        job=wanted.job,
        via=None,
        result=None,
        error=None,
        revision=0,
    )


def sent(command: Command, now_ns: int, via: str, retry_s: float | None = None) -> Command:
    """It was handed out; not yet answered, it is handed out again after a while: `retry_s`, or longer each time."""
    if command.state not in ("queued", "sent"):
        return command
    form, tries = form_of(command), command.tries + 1
    if form is not None:
        via, retry_s = form.via, form.retry_s
    retry_ns = now_ns + int((back_off_s(tries) if retry_s is None else retry_s) * NS_PER_S)
    due_ns = retry_ns if tries < command.max_tries else NEVER_NS
    told = replace(command, state="sent", sent_ns=command.sent_ns or now_ns, tries=tries, via=via, form=None)
    return replace(told, retry_ns=retry_ns, due_ns=due_ns)


def formed(command: Command, now_ns: int, form: Form) -> Command:
    """A protocol's service has worded it: it is published next, and given out to nobody meanwhile."""
    if command.state not in ("queued", "sent"):
        return command
    text = orjson.dumps(form).decode()
    return replace(command, form=text, due_ns=now_ns, retry_ns=now_ns + int(FORM_S * NS_PER_S))


def form_of(command: Command) -> Form | None:
    """Give the form in which it is to be published."""
    return Form(**orjson.loads(command.form)) if command.form is not None else None


def unheard(command: Command, now_ns: int) -> Command:
    """The broker says that nobody listens: soon again, later less often. The device's own poll gets it at once."""
    if command.state not in ("queued", "sent"):
        return command
    wait_ns = min(max((now_ns - command.created_ns) // 4, NS_PER_S), int(MAX_BACK_OFF_S) * NS_PER_S)
    return replace(command, due_ns=now_ns + wait_ns)


def answered(command: Command, reply: Reply, now_ns: int) -> Command:
    """The device spoke. What comes after the end changes no state, but an answer that there was not yet is kept."""
    if not command.active:
        is_late = command.state in ("expired", "cancelled") and reply.state != "accepted"
        if is_late and command.result is None and command.error is None:
            return replace(command, result=reply.result, error=reply.error)
        return command
    delivered_ns = command.delivered_ns or now_ns
    told = replace(command, delivered_ns=delivered_ns, sent_ns=command.sent_ns or delivered_ns, due_ns=NEVER_NS)
    if reply.state == "accepted":
        return replace(told, state="delivered")
    return _end(replace(told, result=reply.result, error=reply.error), reply.state, now_ns)


def expired(command: Command, now_ns: int) -> Command:
    """Its deadline is over."""
    return _end(command, "expired", now_ns) if command.active and command.deadline_ns <= now_ns else command


def cancelled(command: Command, now_ns: int) -> Command:
    """Nobody wants it any more; a device that has it may still do it."""
    return _end(command, "cancelled", now_ns) if command.active else command


def withdrawn(command: Command, now_ns: int, reason: str) -> Command:
    """Its device went for good."""
    return replace(cancelled(command, now_ns), error=reason) if command.active else command


def unknown(command_id: str) -> NotFound:
    """Say that there is no such command."""
    return NotFound(f"no command {command_id[:80]!r}", code="command_not_found")


def back_off_s(tries: int) -> float:
    """How long to wait for an answer to the n-th try."""
    return float(min(BACK_OFF_S * 2 ** (tries - 1), MAX_BACK_OFF_S))


def read_reply(payload: bytes) -> Reply:
    """Read a device's reply: `{"state":"accepted"|"succeeded"|"failed","result":..,"error":".."}`.

    Without `state`, it is the end: failed when there is an `error`, else succeeded; JSON of another form is the result.

    Raises:
        TooLarge: over MAX_BYTES.
        BadRequest: no JSON (`bad_syntax`), or nested too deeply (`too_deep`).
        Unprocessable: another state, or an error that is no text (`bad_value`).
    """
    if len(payload) > MAX_BYTES:
        raise TooLarge(f"a reply of {len(payload)} bytes, limit {MAX_BYTES}")
    try:
        parsed = orjson.loads(payload or b"{}")
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the reply is not JSON: {error}", code="bad_syntax") from None
    if not isinstance(parsed, dict) or not parsed.keys() <= {"state", "result", "error"}:
        parsed = {"result": parsed}
    return to_reply(parsed)


def to_reply(parsed: dict[str, Any]) -> Reply:
    """Make a reply of its members. Raises as `read_reply`."""
    error = parsed.get("error")
    if error is not None and not isinstance(error, str):
        raise Unprocessable("error: must be a text", code="bad_value", fields=["error"])
    state = parsed.get("state") or ("failed" if error is not None else "succeeded")
    if state not in ("accepted", "succeeded", "failed"):
        raise Unprocessable("state: must be accepted, succeeded or failed", code="bad_value", fields=["state"])
    result = dump(parsed["result"], "result") if parsed.get("result") is not None else None
    return Reply(cast("ReplyState", state), result, error[:MAX_ERROR].replace("\0", "") if error is not None else None)


def dump(value: Any, member: str) -> str:
    """Encode params or a result for keeping: what cannot be written again must not get as far as the queue.

    Raises:
        TooLarge: over MAX_BYTES.
        BadRequest: nested deeper than MAX_DEPTH (`too_deep`).
        Unprocessable: an integer that JSON libraries of devices do not know (`out_of_range`), or a number that JSON
            has no word for (`nonfinite`).
    """
    _check(value, member)
    try:
        text = orjson.dumps(value)
    except TypeError:
        raise Unprocessable(f"{member}: an integer beyond 64 bits", code="out_of_range", fields=[member]) from None
    if len(text) > MAX_BYTES:
        raise TooLarge(f"{member} of {len(text)} bytes, limit {MAX_BYTES}", fields=[member])
    return text.decode()


def payload(command: Command) -> dict[str, Any]:
    """Render a command as its device gets it."""
    return {
        "id": command.id,
        "name": command.name,
        "params": orjson.loads(command.params),
        "deadline": clock.format_ns(command.deadline_ns),
        "attempt": command.tries + 1,
    }


def _check(value: Any, member: str, depth: int = 1) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise Unprocessable(f"{member}: a number that is not finite", code="nonfinite", fields=[member])
    if not isinstance(value, dict | list):
        return
    if depth > MAX_DEPTH:
        raise BadRequest(f"{member}: nested deeper than {MAX_DEPTH}", code="too_deep", fields=[member])
    for inner in value.values() if isinstance(value, dict) else value:
        _check(inner, member, depth + 1)


def _end(command: Command, state: CommandState, now_ns: int) -> Command:
    return replace(command, state=state, active=False, ended_ns=now_ns, due_ns=NEVER_NS)
