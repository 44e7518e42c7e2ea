"""Tells devices why a message was quarantined or refused (`devices/{id}/errors`). Bounded; knows no client library."""

from __future__ import annotations

import time
from collections.abc import Callable

import orjson

from ingest.framing import Delivery, Ending
from wire import clock, topics

PER_DEVICE_S = 10  # a device that sends only rubbish learns it ten times a second, not 10,000 times
IN_ALL_S = 500  # so that a broken fleet does not slow the bridge down
MAX_DEVICES = 10_000
MAX_DETAIL = 500
Publish = Callable[[str, bytes], None]


class Notices:
    """Publishes endings to their devices, at most so many a second. Used by one thread."""

    def __init__(self, publish: Publish, now_s: Callable[[], float] = time.monotonic) -> None:
        self._publish = publish
        self._now_s = now_s
        self._second = 0
        self._sent: dict[str, int] = {}
        self._sent_in_all = 0

    def tell(self, delivery: Delivery, ending: Ending) -> bool:
        """Publish one ending; False when it was one too many, or there is no device to tell."""
        if not topics.is_device_id(delivery.device) or not self._allows(delivery.device):
            return False
        notice: dict[str, str | int] = {
            "code": ending.code,
            "detail": ending.detail[:MAX_DETAIL],
            "end": ending.end,
            "time": clock.format_ns(delivery.received_ns),
            "topic": delivery.topic,
        }
        if ending.end == "quarantined" or ending.record is not None:
            notice["index"] = ending.record or 0  # as the list in the answer over HTTP
        if ending.field is not None:
            notice["field"] = ending.field
        self._publish(topics.errors(delivery.device), orjson.dumps(notice))
        return True

    def _allows(self, device: str) -> bool:
        second = int(self._now_s())
        if second != self._second:
            self._second, self._sent_in_all = second, 0
            self._sent.clear()
        sent = self._sent.get(device, 0)
        if sent >= PER_DEVICE_S or self._sent_in_all >= IN_ALL_S or len(self._sent) >= MAX_DEVICES:
            return False
        self._sent[device] = sent + 1
        self._sent_in_all += 1
        return True
