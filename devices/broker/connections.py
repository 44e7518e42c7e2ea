"""Which credential a device that connects over MQTT has used: the one that the broker takes of it now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Uses(Protocol):
    """Takes connections; see `devices.store.CredentialStore`."""

    def mark_connected(self, connected_ns: Mapping[str, int]) -> None: ...


class Access(Protocol):
    """Knows whether the broker's list is that of the registry; see `devices.broker.access.BrokerAccess`."""

    @property
    def is_settled(self) -> bool: ...


class Connections:
    """Notes uses of credentials at the broker."""

    def __init__(self, uses: Uses, access: Access) -> None:
        self._uses = uses
        self._access = access

    def note(self, connected_ns: Mapping[str, int]) -> None:
        """Note that devices connected, and when.

        While the broker may still take another credential than the chosen one, nothing is noted: a rotation must not
        take a device for switched that is not.
        """
        if self._access.is_settled:
            self._uses.mark_connected(connected_ns)
