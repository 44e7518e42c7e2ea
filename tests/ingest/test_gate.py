"""The gate: who is let in, what is cached, how fast changes arrive."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ingest import gate as gate_module
from ingest.gate import ABSENT_S, AWAY_S, PAUSE_S, WAIT_S, Gate
from tests.ingest.intake_support import SECRET, FakeRegistry
from tests.support.waiting import wait_until
from wire import clock
from wire.devices import CredentialRecord
from wire.errors import Forbidden, HeadwaterError, PeerUnavailable, Unauthorized

LOOKUP = "/internal/devices:lookup"
HOUR_NS = 3600 * clock.NS_PER_S


@pytest.fixture
def registry() -> FakeRegistry:
    made = FakeRegistry()
    made.add("d1")
    return made


@pytest.fixture
def gate(registry: FakeRegistry) -> Gate:
    made = Gate(registry)
    made.poll()
    return made


def credential_of(registry: FakeRegistry, device_id: str) -> CredentialRecord:
    return registry.devices[device_id].credentials[0]


def test_second_message_does_not_ask_the_registry(gate, registry) -> None:
    gate.authenticate("d1", SECRET)
    gate.authenticate("d1", SECRET)

    assert registry.calls.count(LOOKUP) == 1


def test_credential_in_use_is_named(gate) -> None:
    assert gate.authenticate("d1", SECRET)[1] == "c-d1"


@pytest.mark.parametrize("device_id", ["d2", "", "a/b", "x\0y", "#", "ü", "x" * 65])
def test_stranger_is_unauthorized(gate, device_id) -> None:
    with pytest.raises(Unauthorized):
        gate.authenticate(device_id, SECRET)


def test_illegal_ids_never_reach_the_registry(gate, registry) -> None:
    with pytest.raises(Unauthorized):
        gate.authenticate("a/b", SECRET)

    assert LOOKUP not in registry.calls


def test_unknown_device_is_not_asked_for_twice_at_once(gate, registry) -> None:
    gate.find(["nobody"])
    gate.find(["nobody"])

    assert registry.calls.count(LOOKUP) == 1
    assert ABSENT_S <= 2.0


def test_device_that_the_broker_let_in_is_asked_for_again_at_once(gate, registry) -> None:
    gate.find(["d2"])
    registry.add("d2")

    assert not gate.find(["d2"]).known
    assert gate.find(["d2"], doubts=True).known


def test_device_registered_after_a_miss_gets_in_with_the_next_poll(gate, registry) -> None:
    gate.find(["d2"])
    registry.add("d2")
    gate.poll()

    assert gate.authenticate("d2", SECRET)


def test_revoked_credential_stops_with_the_next_poll(gate, registry) -> None:
    gate.authenticate("d1", SECRET)
    registry.add("d1", credentials=[])
    gate.poll()

    with pytest.raises(Unauthorized):
        gate.authenticate("d1", SECRET)


def test_changed_device_goes_on_when_the_registry_leaves_right_after(gate, registry) -> None:
    gate.authenticate("d1", SECRET)
    registry.add("d1", tags={"site": "b"})
    registry.lookups_fail = True
    gate.poll()
    registry.is_away = True

    assert gate.authenticate("d1", SECRET)


def test_change_missed_while_the_registry_left_is_taken_in_later(gate, registry) -> None:
    gate.authenticate("d1", SECRET)
    registry.add("d1", credentials=[])
    registry.lookups_fail = True
    gate.poll()
    registry.lookups_fail = False
    gate.poll()

    with pytest.raises(Unauthorized):
        gate.authenticate("d1", SECRET)


def test_new_credential_works_before_the_next_poll(gate, registry) -> None:
    gate.authenticate("d1", SECRET)
    registry.add("d1", "t" * 43)

    wait_until(lambda: _gets_in(gate, "d1", "t" * 43), within_s=2)


def test_enabled_device_works_before_the_next_poll(gate, registry) -> None:
    registry.add("d1", state="disabled")
    with pytest.raises(Forbidden) as refused:
        gate.authenticate("d1", SECRET)
    registry.add("d1")

    assert refused.value.code == "device_disabled"
    wait_until(lambda: _gets_in(gate, "d1", SECRET), within_s=2)


@pytest.mark.parametrize(("not_before", "not_after", "is_valid"), [(-1, 1, True), (1, None, False), (None, -1, False)])
def test_validity_window_is_kept(gate, registry, not_before, not_after, is_valid) -> None:
    now = clock.now_ns()
    window = {
        "not_before_ns": None if not_before is None else now + not_before * HOUR_NS,
        "not_after_ns": None if not_after is None else now + not_after * HOUR_NS,
    }
    registry.add("d1", credentials=[credential_of(registry, "d1").model_copy(update=window)])

    assert _gets_in(gate, "d1", SECRET) is is_valid


def test_cached_device_works_while_registry_is_away(gate, registry) -> None:
    gate.authenticate("d1", SECRET)
    registry.is_away = True
    gate.poll()

    assert gate.authenticate("d1", SECRET)


def test_unknown_device_waits_while_registry_is_away(gate, registry) -> None:
    registry.is_away = True

    with pytest.raises(PeerUnavailable):
        gate.authenticate("d1", SECRET)
    assert gate.find(["d1"]).unanswered == {"d1"}


class SlowRegistry(FakeRegistry):
    """Answers the first lookup only when told to, so that others come meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[str]] = []
        self.may_answer = threading.Event()

    def call(self, method, path, body=None, *, token=None):
        if path == LOOKUP:
            self.asked.append(body["ids"])
            assert self.may_answer.wait(10)
        return super().call(method, path, body, token=token)


def test_devices_that_start_at_once_share_a_lookup() -> None:
    registry = SlowRegistry()
    for number in range(20):
        registry.add(f"d{number}")
    gate = Gate(registry)

    with ThreadPoolExecutor(20) as threads:
        entered = [threads.submit(gate.authenticate, "d0", SECRET)]
        wait_until(lambda: registry.asked, within_s=5)
        entered += [threads.submit(gate.authenticate, f"d{number}", SECRET) for number in range(1, 20)]
        wait_until(lambda: len(gate._wanted) == 19, within_s=5)
        registry.may_answer.set()

    assert [device.id for device, _ in (each.result() for each in entered)] == [f"d{number}" for number in range(20)]
    assert [len(asked) for asked in registry.asked] == [1, 19]


def test_devices_that_share_a_lookup_share_its_failure() -> None:
    registry = SlowRegistry()
    gate = Gate(registry)
    registry.is_away = True

    with ThreadPoolExecutor(8) as threads:
        entered = [threads.submit(gate.authenticate, "d0", SECRET)]
        wait_until(lambda: registry.asked, within_s=5)
        entered += [threads.submit(gate.authenticate, f"d{number}", SECRET) for number in range(1, 8)]
        wait_until(lambda: len(gate._wanted) == 7, within_s=5)
        registry.may_answer.set()

    assert all(isinstance(each.exception(), PeerUnavailable) for each in entered)
    assert len(registry.asked) == 2


def test_registrys_refusal_of_us_is_no_refusal_of_the_device() -> None:
    class Refusing:
        def call(self, method, path, body=None, *, token=None):
            error = HeadwaterError("service token is wrong", code="unauthorized")
            error.status = 401
            raise error

    with pytest.raises(PeerUnavailable):
        Gate(Refusing()).authenticate("d1", SECRET)


def test_reset_forgets_everything(gate, registry) -> None:
    gate.authenticate("d1", SECRET)
    registry.oldest = registry.revision + 1
    gate.poll()

    assert len(gate) == 0


def test_answer_older_than_the_feed_is_not_cached(registry) -> None:
    gate = Gate(registry)
    stale = registry.call("POST", LOOKUP, {"ids": ["d1"]})
    registry.add("d1", credentials=[])
    gate.poll()
    registry._devices_lookup = lambda path, body: stale

    gate.find(["d1"])

    assert not gate.is_cached("d1")


def test_changed_type_is_fetched_by_the_poll(gate, registry) -> None:
    registry.put_type(name="g", fields={"t": {"max": 10}})
    registry.add("d1", type="g")
    gate.poll()
    device = gate.find(["d1"]).known["d1"]
    registry.put_type(name="g", version=2, fields={"t": {"max": 20}})
    gate.poll()

    assert gate.checker_of(device).spec.version == 2


def test_type_made_after_its_device_rules_with_the_poll(gate, registry) -> None:
    registry.add("d1", type="g")
    before = gate.checker_of(gate.find(["d1"]).known["d1"])
    registry.put_type(name="g", fields={"t": {"max": 10}})
    gate.poll()

    assert before is None
    assert gate.checker_of(gate.find(["d1"]).known["d1"]) is not None


def test_deleted_type_rules_no_more(gate, registry) -> None:
    registry.put_type(name="g", fields={"t": {"max": 10}})
    registry.add("d1", type="g")
    gate.find(["d1"])
    del registry.types["default/g"]
    registry._change("types", "default/g")
    gate.poll()

    assert gate.checker_of(gate.find(["d1"]).known["d1"]) is None


def test_type_change_is_not_lost_while_registry_is_away(gate, registry) -> None:
    registry.put_type(name="g")
    registry.add("d1", type="g")
    gate.poll()
    device = gate.find(["d1"]).known["d1"]
    registry.put_type(name="g", version=2)
    changes = registry.call("GET", "/internal/changes?since=0")
    answers = iter([changes])
    registry._devices_lookup = _away
    registry._changes = lambda path, body: next(answers)
    gate.poll()
    del registry._devices_lookup, registry._changes
    gate.poll()

    assert gate.checker_of(gate.find(["d1"]).known["d1"]).spec.version == 2
    assert device.type == "g"


def test_poll_waits_at_the_registry_and_tells_whether_it_answered(gate, registry) -> None:
    asked = []
    answer = registry._changes
    registry._changes = lambda path, body: asked.append(path) or answer(path, body)

    assert gate.poll(WAIT_S)
    assert f"wait={WAIT_S}" in asked[0]
    registry._changes = _away
    assert not gate.poll(WAIT_S)
    assert WAIT_S + PAUSE_S + AWAY_S < 2.0  # what docs/http.md promises


def test_cache_is_bounded(registry, monkeypatch) -> None:
    monkeypatch.setattr(gate_module, "MAX_CACHED", 3)
    gate = Gate(registry)
    for number in range(5):
        registry.add(f"x{number}")
        gate.find([f"x{number}"])

    assert len(gate) == 3
    assert not gate.is_cached("x0")


def test_many_devices_are_found_with_one_question(gate, registry) -> None:
    for number in range(500):
        registry.add(f"x{number}")

    found = gate.find(f"x{number}" for number in range(500))

    assert len(found.known) == 500
    assert registry.calls.count(LOOKUP) == 1


def _away(path, body):
    raise PeerUnavailable("away")


def _gets_in(gate: Gate, device_id: str, secret: str) -> bool:
    try:
        gate.authenticate(device_id, secret)
    except (Unauthorized, Forbidden):
        return False
    return True
