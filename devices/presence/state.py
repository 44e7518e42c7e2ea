"""Presence: what each piece of evidence makes of a device's mark. Pure; knows no broker and no store.

Evidence of one device is applied in the order in which the broker told it. Rules:
- A connection makes it online, its end offline; so does what it says itself (or its last will) on its status topic.
- Telemetry makes it online too (HTTP devices never connect), unless it was received before the device went: the
  bridge may hand in messages a little after the broker reported the end of the connection.
- What it says of its twin and of commands over MQTT counts while it is online; it may have waited at the broker for
  hours, so it brings nobody back.
- A retained status is old news: it counts only when it differs from what the device said last, so a retained
  `online` that a crashed device left behind revives nothing.
- A device that is not known to be connected and was not heard for its silence limit is offline.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import orjson

from wire.clock import NS_PER_MS, NS_PER_S
from wire.topics import is_device_id

SILENT_INTERVALS = 3  # expected intervals a device may miss
MQTT_GRACE_NS = 5 * NS_PER_S  # how long after a connection's end the bridge may still hand in its messages
GRACE_NS = 20 * NS_PER_MS  # the same where the transport is not told: short, so that HTTP counts at once

Kind = Literal["connected", "disconnected", "said", "retained", "seen", "seen_mqtt", "spoke"]
_LINE_CONNECTED = re.compile(r"\d+: New client connected from \S+ as (\S+) \(.*u'(\S+)'\)\.")
_LINE_DISCONNECTED = re.compile(
    r"\d+: (?:Client (\S+) (?:disconnected|closed its connection|has exceeded timeout, disconnecting)\.?"
    r"|Socket error on client (\S+), disconnecting\.)"
)
_BRIDGE = re.compile(r"_bridge(-\d+)?")
_LINE_REFUSED = re.compile(r"\d+: Client .* disconnected, not authorised\.")
_LINE_STARTED = re.compile(r"\d+: mosquitto version \S+ running")


@dataclass(slots=True, frozen=True)
class Mark:
    """What is known of a device's presence."""

    online: bool = False
    connected: bool = False  # the broker told so, and nothing was missed since
    said: str | None = None  # newest word on the status topic
    last_seen_ns: int = 0
    since_ns: int = 0  # silence is counted from here when nothing newer was heard
    gone_ns: int = 0  # telemetry received up to then is no sign of life
    stale: bool = False  # connected, but its type expects more of it than was heard
    event: str = "never"  # newest event of its history; see devices.presence.history
    event_ns: int = 0
    before_ns: int = 0


@dataclass(slots=True, frozen=True)
class Evidence:
    """One thing heard about one device."""

    kind: Kind
    device: str
    time_ns: int
    word: str = ""


@dataclass(slots=True, frozen=True)
class BrokerNews:
    """What one line of the broker's log means."""

    kind: Literal["connected", "disconnected", "refused", "started", "bridge_came", "bridge_went"]
    device: str = ""  # or the bridge


def judge(mark: Mark, evidence: Evidence) -> Mark:
    """Give the mark after a piece of evidence."""
    return _RULES[evidence.kind](mark, evidence)


def silence(mark: Mark) -> Mark:
    """Give the mark of a device that fell silent."""
    return replace(mark, online=False, gone_ns=mark.last_seen_ns - MQTT_GRACE_NS)  # any word from now on counts


def silence_limit_s(expected_interval_s: float | None, default_s: float) -> float:
    """How long a device may be unheard: by its last message, and since its connection began or ended."""
    return default_s if expected_interval_s is None else SILENT_INTERVALS * expected_interval_s


def parse_line(line: str) -> BrokerNews | None:
    """Read a line of mosquitto's log; None for those that say nothing of presence.

    Client ids are user names (`use_username_as_clientid true`), so they are device ids that the broker has checked;
    lines are matched whole, because a refused client may have chosen its id to look like another line.
    """
    if match := _LINE_CONNECTED.fullmatch(line):
        return _about("connected", match[1]) if match[1] == match[2] else None
    if match := _LINE_DISCONNECTED.fullmatch(line):
        return _about("disconnected", match[1] or match[2])
    if _LINE_REFUSED.fullmatch(line):
        return BrokerNews("refused")
    return BrokerNews("started") if _LINE_STARTED.fullmatch(line) else None


def parse_status(payload: bytes) -> str | None:
    """Read a status: `online`, `offline`, or JSON with a `state` of one of these; None for anything else."""
    word: object = payload.decode("ascii", "replace").strip()
    if payload.lstrip()[:1] == b"{":
        try:
            word = orjson.loads(payload).get("state")
        except orjson.JSONDecodeError:
            return None
    return word.lower() if isinstance(word, str) and word.lower() in ("online", "offline") else None


def _about(kind: Literal["connected", "disconnected"], device_id: str) -> BrokerNews | None:
    if _BRIDGE.fullmatch(device_id):
        return BrokerNews("bridge_came" if kind == "connected" else "bridge_went", device_id)
    return BrokerNews(kind, device_id) if is_device_id(device_id) else None


def _connected(mark: Mark, evidence: Evidence) -> Mark:
    at_ns = evidence.time_ns
    heard_ns = max(mark.last_seen_ns, at_ns)
    return replace(mark, online=True, connected=True, stale=False, last_seen_ns=heard_ns, since_ns=at_ns)


def _disconnected(mark: Mark, evidence: Evidence) -> Mark:
    at_ns = evidence.time_ns
    return replace(mark, online=False, connected=False, since_ns=at_ns, gone_ns=at_ns)


def _said(mark: Mark, evidence: Evidence) -> Mark:
    at_ns = evidence.time_ns
    if evidence.word == "online":
        heard_ns = max(mark.last_seen_ns, at_ns)
        return replace(mark, online=True, said="online", stale=False, last_seen_ns=heard_ns, since_ns=at_ns)
    return replace(mark, online=False, said="offline", since_ns=at_ns, gone_ns=at_ns)


def _retained(mark: Mark, evidence: Evidence) -> Mark:
    if mark.said == evidence.word or mark.connected:
        return replace(mark, said=evidence.word)
    if mark.said is None:  # the first that is heard of it: `online` may be years old
        return replace(mark, said=evidence.word)
    is_online = evidence.word == "online"
    return replace(mark, online=is_online, said=evidence.word, since_ns=evidence.time_ns)


def _seen(mark: Mark, evidence: Evidence) -> Mark:
    heard_ns = max(mark.last_seen_ns, evidence.time_ns)
    grace_ns = MQTT_GRACE_NS if evidence.kind == "seen_mqtt" else GRACE_NS
    if mark.online or evidence.time_ns <= max(mark.gone_ns + grace_ns, mark.last_seen_ns):
        return replace(mark, last_seen_ns=heard_ns, stale=mark.stale and heard_ns == mark.last_seen_ns)
    return replace(mark, online=True, stale=False, last_seen_ns=heard_ns, since_ns=evidence.time_ns)


def _spoke(mark: Mark, evidence: Evidence) -> Mark:
    if not mark.online or evidence.time_ns <= mark.last_seen_ns:
        return mark
    return replace(mark, last_seen_ns=evidence.time_ns, stale=False)


_RULES: dict[Kind, Callable[[Mark, Evidence], Mark]] = {
    "connected": _connected,
    "disconnected": _disconnected,
    "said": _said,
    "retained": _retained,
    "seen": _seen,
    "seen_mqtt": _seen,
    "spoke": _spoke,
}
