"""What a device keeps although the broker has acknowledged it: a broker that is killed loses what it had not saved.

A reading is kept until the device's `acks` topic covers it. It is sent again when that topic says that it is missing,
and, after a new connection, when the topic does not cover it in time. Copies harm nobody: they carry boot_id and seq.
Knows no socket; time comes in as an argument.
"""

from __future__ import annotations

from pydantic import ValidationError

from simulators.outbox import Outgoing
from wire.acks import Acks, BootAcks

HOLD_S = 5.0  # after a new connection the topic has so long to say what the platform has
AGAIN_S = 10.0  # least time between two sendings of a reading that is said to be missing
TRUST_S = 30.0  # after so long, a reading that is neither covered nor missing will not be: it is in quarantine
MOST_TRIES = 5  # a reading that the platform refuses would be missing for ever
Key = tuple[str, int]  # boot_id, seq


class Unsettled:
    """Acknowledged readings of one device that the platform is not known to have, the newest `limit` of them."""

    __slots__ = ("_doubtful", "_has_doubted", "_kept", "_limit", "_tries")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: dict[Key, Outgoing] = {}  # oldest first
        self._has_doubted = False
        # Those of them acknowledged over a connection that is gone; an empty set takes three times as much as a dict.
        self._doubtful: dict[Key, None] = {}
        self._tries: dict[Key, tuple[int, float]] = {}  # how often sent again, and when last

    def __len__(self) -> int:
        return len(self._kept)

    def doubtful(self, now_s: float) -> int:
        """Count the readings that a broker may have lost, or may lose yet: one that vanished is not trusted again."""
        if not self._has_doubted:
            return 0
        return len(self._doubtful) or sum(now_s - each.sent_at < TRUST_S for each in self._kept.values())

    def keep(self, outgoing: Outgoing) -> None:
        """Keep a reading that the broker has acknowledged. Malformed ones are told on the `errors` topic, if at all."""
        if not outgoing.boot_id or outgoing.is_malformed or not self._limit:
            return
        self._kept[outgoing.boot_id, outgoing.seq] = outgoing
        if len(self._kept) > self._limit:
            self._drop(next(iter(self._kept)))

    def doubt(self) -> None:
        """Note that the connection is gone, and with it perhaps the broker."""
        self._has_doubted = True
        self._doubtful = dict.fromkeys(self._kept)

    def overdue(self) -> list[Outgoing]:
        """Give, once, what is still in doubt: it has to be sent again."""
        doubtful, self._doubtful = self._doubtful, {}
        return [outgoing for key, outgoing in self._kept.items() if key in doubtful]

    def hear(self, payload: bytes, now_s: float) -> list[Outgoing]:
        """Read a message of the topic; give what it says is missing and has to be sent again."""
        try:
            acks = Acks.model_validate_json(payload)
        except ValidationError:
            return []  # cleared, or from a platform that says it in other words
        boots = {boot.boot_id: boot for boot in (*acks.earlier, acks)}
        missing = []
        for key, outgoing in list(self._kept.items()):
            boot: BootAcks | None = boots.get(key[0])
            if boot is None:
                continue
            if boot.covers(key[1]):
                self._drop(key)
            elif boot.misses(key[1]) and self._may_try(key, now_s):
                missing.append(outgoing)
        return missing

    def _may_try(self, key: Key, now_s: float) -> bool:
        tries, tried_s = self._tries.get(key, (0, now_s - AGAIN_S))
        if tries >= MOST_TRIES or now_s - tried_s < AGAIN_S:
            return False
        self._tries[key] = (tries + 1, now_s)
        self._doubtful.pop(key, None)
        return True

    def _drop(self, key: Key) -> None:
        del self._kept[key]
        self._doubtful.pop(key, None)
        self._tries.pop(key, None)
