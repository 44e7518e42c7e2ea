"""Our revocation list in the broker's folder, and the end of connections whose certificate is on it.

mosquitto reads the list again on SIGHUP, but leaves standing connections alone. So a client of the same id is connected
by a socket that only this installation's user can open: the broker then ends the older connection.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from chassis import logs
from devices.broker.whole_file import write_whole
from devices.x509.service import Authorities
from wire import clock

log = logs.get(__name__)
FRESH_S = 86_400  # a list is good for a week, so one a day is written whatever happens
AHEAD_S = 60  # a list from further ahead is of a clock that was set back since; each new one is 1 s ahead at most
CUT_S = 2.0


class Revocations:
    """Keeps the files; used by one thread."""

    def __init__(self, authorities: Authorities, ca_path: Path, crl_path: Path, cut: Callable[[str], None]) -> None:
        """`cut` ends the connection of a device."""
        self._authorities = authorities
        self._ca_path = ca_path
        self._crl_path = crl_path
        self._cut = cut
        self._written: dict[str, str] | None = None  # serial -> device
        self._trusted = ""  # our own authorities
        self._number = 0

    def write(self) -> list[str] | None:
        """Write the list when it changed; give the devices newly on it, or None when it did not."""
        known = self._authorities.revoked()
        if known is None or (known == (self._trusted, self._written) and not self.is_due()):
            return None
        now_s = _now_s()
        self._number = now_s if self._number > now_s + AHEAD_S else max(now_s, self._number + 1)
        found = self._authorities.revocations(self._number)
        if found is None:
            return None
        certificate, crl, revoked = found
        before, self._written, self._trusted = self._before(), dict(revoked), certificate
        write_whole(self._ca_path, certificate.encode())
        write_whole(self._crl_path, crl.encode())
        return [device for serial, device in revoked if serial not in before]

    def is_due(self) -> bool:
        """Tell whether the list has to be written anew though nothing changed: its day is over, or the clock leapt."""
        return self._written is not None and not -AHEAD_S <= _now_s() - self._number <= FRESH_S

    def _before(self) -> AbstractSet[str]:
        """Give the serials on the list that the broker has: after a start those of the file."""
        if self._written is not None:
            return self._written.keys()
        from devices.x509 import pki

        return pki.serials_of(self._crl_path.read_bytes()) if self._crl_path.exists() else set()

    def cut(self, devices: list[str]) -> None:
        """End the connections of devices, once the broker has the list."""
        for device_id in dict.fromkeys(devices):
            self._cut(device_id)


def _now_s() -> int:
    return clock.now_ns() // clock.NS_PER_S


class SocketCutter:
    """Ends a device's connection at a mosquitto on this machine."""

    def __init__(self, socket_path: Path, credential: tuple[str, str]) -> None:
        self._socket_path = socket_path
        self._credential = credential

    def __call__(self, device_id: str) -> None:
        """Connect with the device's client id, and leave."""
        if not self._socket_path.is_socket():  # no listener takes certificates
            return
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=device_id, transport="unix")
        client.username_pw_set(*self._credential)
        answered: list[bool] = []
        client.on_connect = lambda *_: answered.append(True)
        try:
            client.connect(str(self._socket_path), 1)
            end_ns = clock.now_ns() + int(CUT_S * clock.NS_PER_S)
            while not answered and clock.now_ns() < end_ns:
                client.loop(0.1)
            client.disconnect()
        except OSError as error:
            log.warning("connection_not_cut", device=device_id, reason=str(error))
