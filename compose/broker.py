"""The broker's files: mosquitto.conf and the ACL, from templates beside this module."""

from __future__ import annotations

import os
from pathlib import Path

from compose import autosave
from compose.config import UpConfig
from compose.folder import Folder, StartError, write_private
from devices.broker.access_list import kept_of

TEMPLATE = Path(__file__).with_name("broker.conf")
ACL = Path(__file__).with_name("broker.acl")
# A certificate's CN is the user name and the client id. The socket is for the registry alone: it ends connections whose
# certificate was revoked. Paths are relative to the data folder.
_CERTIFICATES = """\
cafile broker/ca.pem
crlfile broker/crl.pem
require_certificate true
use_identity_as_username true

listener 0 run/broker.sock
"""
TELEMETRY_BYTES = 256 * 1024  # the largest message of telemetry
HEAD_BYTES = 1024  # of a packet: topic and MQTT 5 properties
MEDIA_BRIDGE = "bridge-media"
QUEUE_BYTES = 1024**3  # per client away: at 150 bytes a message 7 million of them


def write(folder: Folder, config: UpConfig, mqtt_port: int) -> Path:
    """Write the configuration; give its path."""
    listeners = [_listener(mqtt_port, config.plain_mqtt_bind)]
    if config.tls_cert and config.tls_key:
        secure = _listener(config.mqtts_port, config.bind)
        cert, key = checked_path(config.tls_cert), checked_path(config.tls_key)
        shown = f"certfile {cert}\nkeyfile {key}\ntls_version tlsv1.2\n"
        listeners.append(f"{secure}{shown}")
        if has_authority(folder):
            listeners.append(f"{_listener(config.mqtt_cert_port, config.bind)}{shown}{_CERTIFICATES}")
    values = {
        # As root mosquitto would change to a user of its own, who may not write in the data folder.
        "USER": "user root" if os.geteuid() == 0 else "",
        "QUEUE_BYTES": str(QUEUE_BYTES),
        "PACKET_BYTES": str(max(TELEMETRY_BYTES, config.media_mqtt_limit_bytes) + HEAD_BYTES),
        "LISTENERS": "\n".join(listeners),
        "AUTOSAVE": str(autosave.interval(config.broker_autosave, autosave.state_bytes(state_file(folder)))),
    }
    _write_access(folder, _access(bridges(folder, config)))
    path = folder.broker / "mosquitto.conf"
    write_private(path, fill(TEMPLATE.read_text(), values))
    return path


def has_authority(folder: Folder) -> bool:
    """Tell whether the registry has an authority of its own: `headwater ca init` was run."""
    return (folder.broker / "ca.pem").exists() and (folder.broker / "crl.pem").exists()


def bridges(folder: Folder, config: UpConfig) -> list[str]:
    """Names of the bridges to run: those wanted, and those of earlier starts whose sessions still hold a share."""
    known = [path.stem for path in folder.broker.glob("bridge-*.session")]
    last = max([config.bridges, *(int(name[7:]) for name in known if name[7:].isdecimal())])
    return ["bridge", *(f"bridge-{number}" for number in range(2, last + 1))]


def _write_access(folder: Folder, text: str) -> None:
    """Write the head of the access list, and the list as the broker reads it until the registry writes it anew."""
    write_private(folder.broker / "services.acl", text)
    path = folder.broker / "devices.acl"
    write_private(path, text + kept_of(path.read_text() if path.exists() else ""))


def _access(names: list[str]) -> str:
    head, _, rest = ACL.read_text().partition("user _bridge\n")
    rights, blank, others = rest.partition("\n\n")
    return head + "".join(f"user _{name}\n{rights}{blank}" for name in names) + others


def state_file(folder: Folder) -> Path:
    """Where the broker saves its state."""
    return folder.broker / "mosquitto.db"


def fill(template: str, values: dict[str, str]) -> str:
    """Put values into a template's `@@NAME@@` places."""
    for name, value in values.items():
        template = template.replace(f"@@{name}@@", value)
    return template


def checked_path(path: Path) -> str:
    """Give the absolute path of a readable file, as text that cannot break out of a configuration file.

    Raises:
        StartError: it is not readable, or its path holds quotes or control characters.
    """
    text = str(path.expanduser().absolute())
    if any(char in "\"'\\${};" or ord(char) < ord(" ") for char in text):
        raise StartError(f"the path {text!r} holds characters that a configuration file cannot carry")
    if not os.access(text, os.R_OK):
        raise StartError(f"the file {text} cannot be read")
    return text


def _listener(port: int, bind: str) -> str:
    return f"listener {port} {bind}\nuse_username_as_clientid true\n"
