"""Devices that a gateway speaks for: whose they are, and what becomes of those nobody knows.

Every door that carries the data of others comes here, whatever its protocol: a gateway's rights end at its own
children and at the prefixes of its rules. A door names them by id, a protocol by an external name. The registry decides
about unknown ones; its refusals are remembered shortly.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from chassis import parking
from ingest.gate import LOOKUP_IDS, Gate, Known
from wire import topics
from wire.errors import PeerUnavailable
from wire.external import is_external_name, plain_name
from wire.gateways import ChildrenAdmitted

REFUSED_S = 2.0  # how long a refusal is not asked for again: changed rules hold within that
MAX_REFUSED = 20_000


class Found(NamedTuple):
    """Children of many gateways: those that may be spoken for, and why the others may not."""

    known: dict[tuple[str, str], Known]  # by gateway and child
    refused: dict[tuple[str, str], str]  # code; `peer_unavailable`: the registry could not be asked


class Stop(NamedTuple):
    """Why a record may not become data of the device that it names."""

    code: str
    owner: Known | None = None  # the device that is meant, where it is the sender's to speak for


@dataclass(slots=True)
class Named:
    """Devices that a sender named: those that may be spoken for, and why the others may not."""

    known: dict[str, Known] = field(default_factory=dict)
    stopped: dict[str, Stop] = field(default_factory=dict)


class SenderNames:
    """The names a sender may use, for its decoder: `in` tells. Read when the first is asked for."""

    __slots__ = ("_book", "_gate", "_others", "_sender")

    def __init__(self, gate: Gate, sender: Known, others: Iterable[Known] = ()) -> None:
        """`others`: devices whose names count, too."""
        self._gate, self._sender, self._others = gate, sender, others
        self._book: Collection[str] | None = None

    def __contains__(self, name: object) -> bool:
        """Raises PeerUnavailable: they are not cached and the registry is away."""
        if self._book is None:
            others = {name for other in self._others for name in other.names}
            book = book_of(self._gate, self._sender)
            self._book = {*book, *others} if others else book
        return name in self._book or (isinstance(name, str) and plain_name(name) == self._sender.id)


def book_of(gate: Gate, sender: Known) -> Mapping[str, str]:
    """Give the ids of devices by the names that a sender may call them: a gateway's, else its own. Raises as above."""
    return gate.names.of(sender.id) if sender.is_gateway else dict.fromkeys(sender.names, sender.id)


class Children:
    """Finds the children of gateways; thread-safe."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._lock = threading.Lock()  # guards _refused
        self._refused: dict[tuple[str, str], tuple[float, str]] = {}  # -> until, monotonic; code

    def find(self, wanted: Iterable[tuple[Known, str]]) -> Found:
        """Find each gateway's child, each pair named once; those that its rules let in are registered on the way."""
        pairs = list(wanted)
        found = self._gate.find({child for _, child in pairs if topics.is_device_id(child)})
        known: dict[tuple[str, str], Known] = {}
        refused: dict[tuple[str, str], str] = {}
        unknown: dict[str, list[str]] = {}
        for gateway, child in pairs:
            device = found.known.get(child)
            if code := _trespass(gateway, child, device):
                refused[gateway.id, child] = code
            elif device is not None:
                known[gateway.id, child] = device
            elif child in found.unanswered:
                refused[gateway.id, child] = "peer_unavailable"
            elif not self._is_remembered(gateway.id, child, refused):
                unknown.setdefault(gateway.id, []).append(child)
        for gateway_id, children in unknown.items():
            self._admit(gateway_id, children, known, refused)
        return Found(known, refused)

    def find_named(self, sender: Known, names: Collection[str], *, may_admit: bool = True) -> Named:
        """Find the devices that a sender names by external names; a gateway's unknown ones are registered by its rules.

        Args:
            sender: who names them; one that is no gateway may name itself.
            names: each once.
            may_admit: whether unknown ones are registered; else they are stopped as `unknown_device`.

        Raises:
            PeerUnavailable: what a name stands for is not cached and the registry is away.
        """
        book = book_of(self._gate, sender)
        found = self._gate.find({book[name] for name in names if name in book})
        named, unknown = Named(), list[str]()
        for name in names:
            device_id = book.get(name, "")
            if device_id in found.unanswered:
                raise PeerUnavailable(f"{device_id} is not cached and the registry is away")
            if not _is_settled(sender, name, found.known.get(device_id), named, may_admit=may_admit):
                unknown.append(name)
        if unknown:
            self._admit_named(sender, unknown, named)
        return named

    def _admit_named(self, gateway: Known, names: Sequence[str], named: Named) -> None:
        book, refused = self._gate.names.of(gateway.id), dict[tuple[str, str], str]()
        asked = [name for name in names if not self._is_remembered(gateway.id, name, refused)]
        answer = self._ask(gateway.id, names=asked) if asked else ChildrenAdmitted(refused={})
        if answer is None:
            raise PeerUnavailable("a device is not known here and the registry is away")
        for name, code in answer.refused.items():
            self._remember(gateway.id, name, code)
        self._gate.names.learn(gateway.id, book, answer.named)
        found = self._gate.find(answer.named.values())
        if found.unanswered:
            raise PeerUnavailable("a device is not cached and the registry is away")
        codes = answer.refused | {name: code for (_, name), code in refused.items()}
        for name in names:
            device = found.known.get(answer.named.get(name, ""))
            if device is None:
                named.stopped[name] = Stop(codes.get(name, "identity_mismatch"))
            else:
                _judge(gateway, name, device, named)

    def _ask(self, gateway: str, children: Sequence[str] = (), names: Sequence[str] = ()) -> ChildrenAdmitted | None:
        """Have the registry register what a gateway's rules let in; None: it is away."""
        result = ChildrenAdmitted(refused={})
        try:
            for start in range(0, max(len(children), len(names)), LOOKUP_IDS):
                part = slice(start, start + LOOKUP_IDS)
                asked = {"gateway": gateway, "children": list(children[part]), "names": list(names[part])}
                told = parking.aside(self._gate.ask, "POST", "/internal/children:admit", asked)
                answer = ChildrenAdmitted.model_validate(told)
                result.refused |= answer.refused
                result.named |= answer.named
        except PeerUnavailable:
            return None
        self._gate.expect([*children, *result.named.values()])
        return result

    def _admit(
        self,
        gateway: str,
        children: list[str],
        known: dict[tuple[str, str], Known],
        refused: dict[tuple[str, str], str],
    ) -> None:
        answer = self._ask(gateway, children)
        if answer is None:
            refused |= {(gateway, child): "peer_unavailable" for child in children}
            return
        codes = answer.refused
        admitted = [child for child in children if child not in codes]
        found = self._gate.find(admitted)
        for child in admitted:
            device = found.known.get(child)
            if device is not None and device.parent == gateway:
                known[gateway, child] = device
            else:  # taken by somebody else meanwhile, or the registry went away just now
                code = "peer_unavailable" if child in found.unanswered else "identity_mismatch"
                refused[gateway, child] = code
        for child, code in codes.items():
            refused[gateway, child] = code
            self._remember(gateway, child, code)

    def _is_remembered(self, gateway: str, child: str, refused: dict[tuple[str, str], str]) -> bool:
        until_s, code = self._refused.get((gateway, child), (0.0, ""))
        if time.monotonic() >= until_s:
            return False
        refused[gateway, child] = code
        return True

    def _remember(self, gateway: str, child: str, code: str) -> None:
        with self._lock:
            if len(self._refused) >= MAX_REFUSED:
                self._refused.clear()
            self._refused[gateway, child] = (time.monotonic() + REFUSED_S, code)


def _trespass(gateway: Known, child: str, device: Known | None) -> str | None:
    """Give the code when the gateway may not speak for this id, as far as that is known here."""
    if not gateway.is_gateway or not topics.is_device_id(child):
        return "identity_mismatch"
    if gateway.prefixes and not child.startswith(gateway.prefixes):
        return "identity_mismatch"
    if device is not None and (device.parent != gateway.id or device.tenant != gateway.tenant):
        return "identity_mismatch"
    if gateway.is_held or not gateway.is_active:
        return "device_disabled"
    return "device_disabled" if device is not None and not device.is_active else None


def _is_settled(sender: Known, name: str, device: Known | None, named: Named, *, may_admit: bool) -> bool:
    """Sort a name by what is known of it; False: the registry has to be asked to let it in."""
    if not is_external_name(name):
        named.stopped[name] = Stop("bad_name")
        return True
    if device is not None:
        _judge(sender, name, device, named)
        return True
    if plain_name(name) == sender.id:
        named.known[name] = sender
        return True
    stop = _stop_unknown(sender, may_admit=may_admit)
    if stop is not None:
        named.stopped[name] = stop
    return stop is not None


def _judge(sender: Known, name: str, device: Known, named: Named) -> None:
    """Sort a device that a sender named into those it may speak for and the others."""
    if device.id == sender.id:
        named.known[name] = sender
    elif (code := _trespass(sender, device.id, device)) is None:
        named.known[name] = device
    else:
        named.stopped[name] = Stop(code, device if code == "device_disabled" else None)


def _stop_unknown(sender: Known, *, may_admit: bool) -> Stop | None:
    if not sender.is_gateway:
        return Stop("identity_mismatch")
    if sender.is_held or not sender.is_active:
        return Stop("device_disabled")
    return None if may_admit else Stop("unknown_device")
