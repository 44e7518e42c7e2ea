"""Zigbee2MQTT's devices by their addresses, which outlast friendly names: `bridge/devices` tells them, once."""

from __future__ import annotations

import re
from pathlib import Path

from ingest.protocols import parse
from ingest.protocols.base import Context, Decoded, Due
from ingest.protocols.kept import Kept
from ingest.protocols.zigbee2mqtt.decoder import below_base, is_of_devices, name_of, read_devices, take

FILE = "zigbee2mqtt.db"
MAX_OF_SENDER = 10_000  # devices and names; of what is more, friendly names are names
CALLED = "#called"  # no topic holds it
_ADDRESS = re.compile(r"0x[0-9a-f]{16}", re.ASCII)


class Zigbee2mqttHost:
    """A Host; see `ingest.protocols.base`."""

    def __init__(self, folder: Path) -> None:
        self._kept = Kept(folder / FILE)  # by base topic: addresses by friendly name, and names by address

    def decode(self, content: bytes, context: Context) -> Decoded:
        """Decode a message; a device is called by its address as soon as the bridge told that."""
        levels = below_base(context.topic)
        if context.transport != "mqtt" or not context.is_gateway or not levels:
            return take(content, context, name_of)
        base = context.topic.removesuffix("/".join(levels))
        if is_of_devices(levels):
            self._learn(content, base, context)
        return take(content, context, lambda friendly: self._name(friendly, base, context))

    def _learn(self, content: bytes, base: str, context: Context) -> None:
        try:
            devices = read_devices(content)
        except parse.Unreadable:
            return
        told = {each["friendly_name"]: each.get("ieee_address") for each in devices}
        addresses = {name: address for name, address in told.items() if _is_address(address)}
        self._kept.put((context.sender, base), addresses, MAX_OF_SENDER)
        for friendly in addresses:  # before one is renamed
            self._name(friendly, base, context)

    def _name(self, friendly: str, base: str, context: Context) -> str:
        """Give the name of a device: its address, unless a child is known by its friendly name from before.

        Such a child keeps that name, whatever the device is called later.
        """
        address = self._kept.get((context.sender, base)).get(friendly)
        if address is None:
            return name_of(friendly)
        key = context.sender, f"{base}{CALLED}"
        called = self._kept.get(key)
        name: str = called.get(address) or name_of(address)
        before = name_of(friendly)
        if address in called or name == before or name in context.names or before not in context.names:
            return name
        is_free = before not in called.values()  # else it was another device's once
        return before if is_free and self._kept.put(key, called | {address: before}, MAX_OF_SENDER) else name

    def commit(self) -> None:
        """Keep what changed. Raises Unavailable."""
        self._kept.commit()

    def rollback(self) -> None:
        """Forget what changed since the last commit."""
        self._kept.rollback()

    def due(self) -> Due:
        """Give nothing: devices are asked for nothing."""
        return Due()

    def close(self) -> None:
        """Close the file."""
        self._kept.close()


def _is_address(address: object) -> bool:
    return type(address) is str and _ADDRESS.fullmatch(address) is not None
