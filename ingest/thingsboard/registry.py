"""What the door asks of the registry: twins and provisioning of its devices, commands and wishes for them.

All calls block: they are made in threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any
from urllib.parse import quote

from chassis.peers import HttpPeer, Peer
from wire.errors import HeadwaterError, PeerUnavailable

PROTOCOL = "thingsboard"
WAIT_S, SLACK_S = 4.0, 6.0  # how long a question for news stays open, and how late its answer may be
TWIN = "/v1/device/twin"
REMOTE_IP: ContextVar[str] = ContextVar("remote_ip", default="")  # of who a call is made for


def connect(url: str, token: str) -> HttpPeer:
    """Give the registry, which is told for whom it is asked."""
    return HttpPeer(url, token, timeout_s=WAIT_S + SLACK_S, remote_ip=REMOTE_IP.get)


class Registry:
    """The calls; thread-safe. All raise PeerUnavailable, and what the registry refuses with."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def twin(self, token: str, child: str) -> dict[str, Any]:
        """Give the twin of a device, or of a child that it speaks for."""
        found: dict[str, Any] = self.peer.call("GET", TWIN + _for(child), token=token)
        return found

    def report(self, token: str, child: str, patch: bytes) -> None:
        """Keep what a device says of itself, or of a child: a merge patch."""
        self.peer.call("PATCH", f"{TWIN}/reported{_for(child)}", patch, token=token)

    def provision(self, request: bytes) -> dict[str, Any]:
        """Have a device registered; a refusal is an answer."""
        try:
            answer: dict[str, Any] = self.peer.call("POST", "/api/v1/provision", request)
        except PeerUnavailable:
            raise
        except HeadwaterError as error:
            status = "NOT_FOUND" if error.code == "unauthorized" else "FAILURE"
            return {"status": status, "errorMsg": error.extra.get("errorMsg", error.detail)}
        return answer

    def route(self, devices: Sequence[str], *, is_here: bool) -> None:
        """Have the commands of these devices come here, or no longer."""
        asked = {"protocol": PROTOCOL, "devices": list(devices), "ends": not is_here}
        self.peer.call("POST", "/internal/commands:route", asked)

    def commands(self, wait_s: float = WAIT_S) -> list[dict[str, Any]]:
        """Give commands for devices that are here, as soon as there are some."""
        asked = {"protocol": PROTOCOL, "limit": 100, "wait": wait_s}
        found: list[dict[str, Any]] = self.peer.call("POST", "/internal/commands:claim", asked)["commands"]
        return found

    def tell(self, *reports: dict[str, Any]) -> None:
        """Tell what became of commands."""
        self.peer.call("POST", "/internal/commands:report", {"protocol": PROTOCOL, "reports": reports})

    def wishes(self, devices: Sequence[str]) -> list[dict[str, Any]]:
        """Give the desired parts of these devices' twins."""
        found: list[dict[str, Any]] = self.peer.call("POST", "/internal/twins:desired", {"devices": devices})["twins"]
        return found

    def changed_wishes(self, since: Any, wait_s: float = WAIT_S) -> tuple[list[dict[str, Any]], Any]:
        """Give the twins that changed since a place, as soon as there are some, and the place after them."""
        answer = self.peer.call("POST", "/internal/twins:desired", {"since": since, "wait": wait_s})
        return answer["twins"], answer["next"]


def _for(child: str) -> str:
    return f"?device={quote(child, safe='')}" if child else ""
