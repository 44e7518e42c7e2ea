from __future__ import annotations

from ingest.reports import Reports
from ingest.usage import MAX_LABELS, MESSAGES, OTHERS, Usage
from tests.ingest.intake_support import FakeRegistry
from wire.errors import PeerUnavailable


def test_what_is_taken_counts_once_and_comes_back_when_it_was_not_told() -> None:
    usage = Usage()
    usage.note([("acme", 2, 30), ("other", 1, 1)])
    usage.note([("acme", 1, 10)])

    taken = usage.take()

    assert taken == {"acme": [2, 3, 40], "other": [1, 1, 1]}
    assert usage.take() == {}
    usage.note([("acme", 1, 1)])
    usage.put_back(taken)
    assert usage.take()["acme"] == [3, 4, 41]


def test_metrics_have_few_labels_however_many_tenants_there_are() -> None:
    usage = Usage()
    before = MESSAGES.labels(OTHERS)._value.get()

    usage.note((f"many-{number}", 1, 1) for number in range(MAX_LABELS + 5))

    assert MESSAGES.labels(OTHERS)._value.get() - before == 5


def test_usage_waits_while_the_registry_is_away() -> None:
    class Away(FakeRegistry):
        is_away = True
        told: list = []

        def call(self, method, path, body=None, *, token=None):
            if self.is_away:
                raise PeerUnavailable("away")
            self.told.append((path, body))

    registry = Away()
    reports = Reports(registry)
    reports.usage.note([("acme", 2, 3)])
    reports.tell_usage()

    registry.is_away = False
    reports.tell_usage()
    reports.tell_usage()

    spent = {"messages": 1, "points": 2, "bytes": 3}
    assert registry.told == [("/internal/usage", {"tenants": {"acme": spent}})]
