"""MQTT topics of the platform (docs/topics.md): building and reading them. Knows no client library."""

from __future__ import annotations

import re
from typing import NamedTuple

MQTT_PORT = 1883  # of a broker whose address names none
DEVICE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
TELEMETRY = "devices/+/telemetry"
TELEMETRY_PROTOCOL = "devices/+/telemetry/+"
CHILD_TELEMETRY = "devices/+/children/+/telemetry"
CHILD_TELEMETRY_PROTOCOL = "devices/+/children/+/telemetry/+"
MEDIA = "devices/+/media/+"
STATUS = "devices/+/status"
TWIN_DESIRED = "devices/+/twin/desired"
TWIN_REPORTED = "devices/+/twin/reported"
CHILD_TWIN_DESIRED = "devices/+/children/+/twin/desired"
CHILD_TWIN_REPORTED = "devices/+/children/+/twin/reported"
COMMAND_REPLY = "devices/+/commands/+/reply"
CHILD_COMMAND_REPLY = "devices/+/children/+/commands/+/reply"
FEED = "headwater/feed"  # writer -> dashboards, QoS 0; only services may read or write below headwater/


class DeviceTopic(NamedTuple):
    """`devices/{device_id}/{channel}[/{rest}]` taken apart."""

    device_id: str
    channel: str
    rest: str


def is_device_id(text: str) -> bool:
    """Tell whether the text is a legal device id, the whole of it (a trailing newline is not)."""
    return DEVICE_ID.fullmatch(text) is not None


def parse_device_topic(topic: str) -> DeviceTopic | None:
    """Take `devices/{id}/{channel}[/{rest}]` apart; None when the topic is not of that form or the id is illegal."""
    parts = topic.split("/", 3)
    if len(parts) < 3 or parts[0] != "devices" or not is_device_id(parts[1]):  # noqa: PLR2004 - levels of the form
        return None
    return DeviceTopic(parts[1], parts[2], parts[3] if len(parts) == 4 else "")  # noqa: PLR2004 - with a rest


def parse_child_topic(topic: DeviceTopic) -> DeviceTopic | None:
    """Give a gateway's `children/{child}/{channel}/{rest}` as its child's topic; None when it is not of that form."""
    child, _, tail = topic.rest.partition("/")
    return parse_device_topic(f"devices/{child}/{tail}") if topic.channel == "children" else None


def child(gateway_id: str, topic: str) -> str:
    """Give the topic by which a gateway hears or says what is on its child's topic."""
    return topic.replace("devices/", f"devices/{gateway_id}/children/", 1)


def telemetry(device_id: str, protocol: str = "json") -> str:
    """Topic a device publishes its telemetry on."""
    return f"devices/{device_id}/telemetry" if protocol == "json" else f"devices/{device_id}/telemetry/{protocol}"


def media(device_id: str, channel: str) -> str:
    """Topic a device publishes its snapshots and other blobs on."""
    return f"devices/{device_id}/media/{channel}"


def status(device_id: str) -> str:
    """Topic of presence: retained, also the last will."""
    return f"devices/{device_id}/status"


def errors(device_id: str) -> str:
    """Topic on which a device is told why a message was quarantined or refused."""
    return f"devices/{device_id}/errors"


def acks(device_id: str) -> str:
    """Topic, retained, on which a device is told which of its numbered readings are kept; see `wire.acks`."""
    return f"devices/{device_id}/acks"


def twin_desired(device_id: str) -> str:
    """Topic, retained, of what a device is wanted to be."""
    return f"devices/{device_id}/twin/desired"


def twin_reported(device_id: str) -> str:
    """Topic on which a device says what it is."""
    return f"devices/{device_id}/twin/reported"


def command(device_id: str, command_id: str) -> str:
    """Topic of one command to a device."""
    return f"devices/{device_id}/commands/{command_id}"


def command_reply(device_id: str, command_id: str) -> str:
    """Topic on which a device answers a command."""
    return f"{command(device_id, command_id)}/reply"
