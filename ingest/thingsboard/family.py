"""The children of gateways by the names these have for them. Blocks: it is asked in threads."""

from __future__ import annotations

from ingest.children import Children
from ingest.gate import Gate
from ingest.protocols.thingsboard.decoder import child_name
from ingest.reports import Reports
from wire import clock
from wire.errors import Forbidden, PeerUnavailable, Unauthorized


class GateFamily:
    """Finds children, as the gateway's rules allow, and notes whether they are online. Thread-safe."""

    def __init__(self, gate: Gate, reports: Reports) -> None:
        self._gate = gate
        self._children = Children(gate)
        self._reports = reports

    def find(self, gateway: str, name: str) -> str:
        """Give the id of what a gateway calls so; one that nobody knows is registered, if its rules let it in.

        Raises:
            Forbidden: it may not speak for it, with the code that says why.
            PeerUnavailable: it is not known here and the registry is away.
        """
        sender = self._gate.find((gateway,))
        if gateway in sender.unanswered:
            raise PeerUnavailable(f"{gateway} is not cached and the registry is away")
        if gateway not in sender.known:
            raise Unauthorized(f"{gateway} is gone")
        wanted = child_name(name)
        named = self._children.find_named(sender.known[gateway], {wanted}, may_admit=True)
        if wanted in named.stopped:
            raise Forbidden(f"{gateway} may not speak for it", code=named.stopped[wanted].code)
        return named.known[wanted].id

    def note(self, device: str, *, is_online: bool) -> None:
        """Note that a device came or went."""
        self._reports.note_presence({device: is_online}, clock.now_ns())
