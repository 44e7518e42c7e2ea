"""The protocols by name: what each is called and where its devices send it; an explicit list, filled by hand.

A declaration is data: only the service that runs a protocol imports the code that it names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple


class Topics(NamedTuple):
    """The topics of a protocol as its devices have them, when nobody configured others."""

    up: tuple[str, ...] = ()  # filters of what devices say: the bridge subscribes to those of which a part is claimed
    down: tuple[str, ...] = ()  # filters of what only they are told
    asked: tuple[str, ...] = ()  # filters on which its ingestion service asks devices for something, through a bridge
    told: tuple[str, ...] = ()  # filters of what all its devices are told
    is_ordered: bool = False  # what they say means something only in its order: several bridges must not share it


NONE: Final = Topics()
HOST_STATES: Final = "spBv1.0/STATE/+"  # which Sparkplug host applications are online


@dataclass(frozen=True)
class Declaration:
    """A payload format: who decodes it, in which service, and how HTTP and MQTT name it.

    Code is named as `module:function`; a module that begins with a dot lies below `ingest.protocols`.
    """

    name: str  # as in `/v1/telemetry/{name}` and `devices/{id}/telemetry/{name}`
    service: str  # the ingestion service that runs it: `headwater serve ingest --protocol {service}`
    decoder: str  # see ingest.protocols.base.Decoder
    media_types: tuple[str, ...] = ()  # the Content-Types that `POST /v1/telemetry` takes for it
    is_typed: bool = False  # its numbers say whether they are integers
    doors: str = ""  # what adds the paths its own clients post to; see ingest.door
    paths: tuple[str, ...] = ()  # those paths, or what they begin with where they end in `/`
    refusal: str = ""  # what words an error for one of those paths; else it is a problem document
    states: tuple[str, ...] = ()  # how its own topics end that hold a state: retained, they are no old data
    host: str = ""  # what opens, with a folder, the Host by which one process decodes all, in order
    topics: Topics = NONE  # of its own: what can be claimed for it


BUILT_IN: Final = (
    Declaration("json", "json", ".json.decoder:decode", ("application/json", "text/json")),
    Declaration("ndjson", "json", ".json.decoder:decode_lines", ("application/x-ndjson", "application/ndjson")),
    Declaration("cbor", "cbor", ".cbor.decoder:decode", ("application/cbor",), is_typed=True),
    Declaration(
        "msgpack",
        "msgpack",
        ".msgpack.decoder:decode",
        ("application/msgpack", "application/vnd.msgpack", "application/x-msgpack"),
        is_typed=True,
    ),
    Declaration(
        "thingsboard",
        "thingsboard",
        ".thingsboard.decoder:decode",
        doors=".thingsboard.doors:add_doors",
        paths=("/api/v1/",),
    ),
    Declaration("senml", "senml", ".senml.decoder:decode", ("application/senml+json",)),
    Declaration("senml-cbor", "senml", ".senml.decoder:decode_cbor", ("application/senml+cbor",)),
    Declaration(
        "line",
        "line",
        ".line.decoder:decode",
        is_typed=True,
        doors=".line.doors:add_doors",
        paths=("/api/v2/write", "/write", "/query", "/ping", "/health", "/ready"),
        refusal=".line.answers:refusal",
    ),
    Declaration(
        "otlp",
        "otlp",
        ".otlp.decoder:decode",
        is_typed=True,
        doors=".otlp.doors:add_doors",
        paths=("/v1/metrics",),
        refusal=".otlp.answers:refusal",
    ),
    Declaration(
        "prometheus",
        "prometheus",
        ".prometheus.decoder:decode",
        is_typed=True,
        doors=".prometheus.doors:add_doors",
        paths=("/api/v1/write",),
        refusal=".prometheus.answers:refusal",
    ),
    Declaration(
        "tasmota",
        "tasmota",
        ".tasmota.decoder:decode",
        states=("/LWT",),
        topics=Topics(up=("tele/#", "stat/#"), down=("cmnd/#",)),
    ),
    Declaration("owntracks", "owntracks", ".owntracks.decoder:decode", topics=Topics(up=("owntracks/#",))),
    Declaration("shelly", "shelly", ".shelly.decoder:decode", states=("/online",), topics=Topics(up=("shelly/#",))),
    Declaration(
        "zigbee2mqtt",
        "zigbee2mqtt",
        ".zigbee2mqtt.decoder:decode",
        states=("/availability",),
        host=".zigbee2mqtt.host:Zigbee2mqttHost",
        topics=Topics(up=("zigbee2mqtt/#",)),
    ),
    # By default a node's prefix is its name: a claim of its own.
    Declaration("esphome", "esphome", ".esphome.decoder:decode", states=("/status",), topics=Topics(up=("esphome/#",))),
    Declaration(
        "homie",
        "homie",
        ".homie.decoder:decode",
        states=("/$state",),
        host=".homie.host:HomieHost",
        topics=Topics(up=("homie/#",)),
    ),
    Declaration("collectd", "collectd", ".collectd.decoder:decode", topics=Topics(up=("collectd/#",))),
    # For what is told of fields: the values have topics of their own.
    Declaration(
        "homeassistant", "homeassistant", ".homeassistant.decoder:decode", topics=Topics(up=("homeassistant/#",))
    ),
    Declaration(
        "sparkplug",
        "sparkplug",
        ".sparkplug.decoder:decode",
        is_typed=True,
        host=".sparkplug.host:open_host",
        topics=Topics(up=("spBv1.0/#",), asked=("spBv1.0/+/NCMD/+", HOST_STATES), told=(HOST_STATES,), is_ordered=True),
    ),
    Declaration(
        "chirpstack",
        "lorawan",
        ".lorawan.decoder:decode_chirpstack",
        doors=".lorawan.doors:add_chirpstack",
        topics=Topics(up=("application/+/device/+/event/+",), down=("application/+/device/+/command/+",)),
    ),
    Declaration(
        "tts",
        "lorawan",
        ".lorawan.decoder:decode_tts",
        doors=".lorawan.doors:add_tts",
        topics=Topics(up=("v3/+/devices/#",)),
    ),
    Declaration("media", "media", ".media.decoder:decode", is_typed=True),
    Declaration("ruuvi", "ruuvi", ".ruuvi.decoder:decode", is_typed=True, topics=Topics(up=("ruuvi/#",))),
)
