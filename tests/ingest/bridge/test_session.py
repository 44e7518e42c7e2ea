"""The session: epoch guard, faults inside its thread, refusals of the broker, protocols by topic, alarms."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from paho.mqtt.client import ConnectFlags
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from ingest.bridge import metrics
from ingest.bridge.config import BridgeConfig
from ingest.bridge.holds import size_of_all
from ingest.bridge.lane import Settled
from ingest.bridge.mailbox import Mailbox
from ingest.bridge.session import DROPPED, Session
from ingest.bridge.subscriptions import choose_filters
from ingest.framing import Delivery
from tests.ingest.bridge.support import QUICK, Broker, Ingest, config_for, defer_if, running, take_all
from tests.support.waiting import wait_until


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


class FakeClient:
    """Stands for an open connection and records the acks."""

    def __init__(self) -> None:
        self.acked: list[int] = []
        self.is_open = True

    def socket(self) -> object | None:
        return self if self.is_open else None

    def acknowledge(self, mids: list[int]) -> None:
        self.acked += mids


def settled(epoch: int, *mids: int) -> Settled:
    return Settled(epoch, [Delivery("d", "devices/d/telemetry", b"{}", 1, mid) for mid in mids])


@pytest.fixture
def session() -> Iterator[Session]:
    mailbox = Mailbox()
    session = Session(BridgeConfig(), {}, mailbox, QUICK)
    session._client = FakeClient()
    session._epoch = 3
    yield session
    mailbox.close()


def test_ack_goes_only_over_the_connection_of_its_message(session):
    before = metrics.STALE_ACKS._value.get()

    session._settle_one(settled(3, 1, 2, 0))
    session._settle_one(settled(2, 3, 4))
    session._settle_one(settled(4, 5))

    assert session._client.acked == [1, 2]
    assert metrics.STALE_ACKS._value.get() == before + 3


def test_nothing_is_acked_while_no_connection_is_open(session):
    session._client.is_open = False

    session._settle_one(settled(3, 1))

    assert session._client.acked == []


def test_messages_given_up_are_not_acked(session):
    session._settle_one(Settled(3, settled(3, 1).deliveries, is_acceptable=False))

    assert session._client.acked == []


@pytest.mark.parametrize("is_cut", [True, False])
def test_window_is_empty_after_a_connection_that_broke_while_acks_were_due(session, is_cut):
    """Whether the lane had landed the batch before the connection was lost, or has it in flight still."""
    done = Settled(3, settled(3, 1, 2, 0).deliveries, is_cut=is_cut)
    session._lanes = {"json": CutLane([each for each in done.deliveries if each.mid and is_cut])}
    session._unacked, session._unacked_bytes = 3, size_of_all(done.deliveries)
    session._client.is_open = False

    session._lose("closed by the broker")
    session._settle_one(done)

    assert (session._unacked, session._unacked_bytes) == (0, 0)


class CutLane(NamedTuple):
    """What a lane gives at a cut."""

    held: list[Delivery]

    def cut(self, epoch: int) -> list[Delivery]:
        return self.held


@pytest.mark.parametrize(("is_present", "is_same"), [(True, True), (False, False)])
def test_each_life_of_the_session_has_a_name_of_its_own(session, is_present, is_same):
    names: list[str] = []
    session._lanes = {"json": SimpleNamespace(name_session=names.append)}
    session._client.take_in = session._client.unsubscribe = lambda _wanted: None
    before = session._name.name

    session._on_connect(None, None, ConnectFlags(is_present), ReasonCode(PacketTypes.CONNACK), None)

    assert (session._name.name == before) is is_same
    assert names == ([] if is_same else [session._name.name])


def test_filters_are_shared_only_among_several():
    alone, shared = choose_filters(1, 1), choose_filters(2, 2)

    assert alone[0][:2] == ["devices/+/telemetry", "devices/+/telemetry/+"]
    assert shared[0] == [f"$share/headwater/{name}" for name in alone[0]]
    assert (alone[1], shared[1]) == (shared[0], alone[0])
    assert choose_filters(3, 2) == ([], alone[0] + shared[0])


def test_rising_count_of_dropped_messages_raises_an_alarm(session, caplog):
    for count in (b"0", b"5", b"5", b"0", b"nonsense"):
        session._note(DROPPED, count)

    assert events(caplog).count("broker_dropped") == 1
    assert metrics.BROKER_DROPPED._value.get() == 0


class Stumbling(Session):
    """Raises at the first messages it receives, as a bug would (T13)."""

    stumbles = 0

    def _receive(self, deliveries: list[Delivery]) -> None:
        if Stumbling.stumbles < 2:
            Stumbling.stumbles += 1
            raise RuntimeError("a bug")
        super()._receive(deliveries)


def test_exception_in_the_callback_ends_neither_thread_nor_message(mosquitto, bridge_ingest, bridge_publisher):
    Stumbling.stumbles = 0
    with running(config_for(mosquitto, bridge_ingest), Stumbling) as bridge:
        wait_until(lambda: bridge.session.is_ready, what="subscribed")
        bridge_publisher.send_numbers(50)

        wait_until(lambda: len(bridge_ingest.payloads()) == 50, what="all are taken")
        assert Stumbling.stumbles == 2
        assert bridge.are_alive()


class Deaf(Session):
    """Fails in paho's own callback."""

    stumbles = 0

    def _on_subscribe(self, *arguments: object) -> None:
        if Deaf.stumbles < 2:
            Deaf.stumbles += 1
            raise RuntimeError("a bug")
        super()._on_subscribe(*arguments)


def test_exception_in_a_callback_of_paho_is_survived(mosquitto, bridge_ingest, bridge_publisher):
    Deaf.stumbles = 0
    with running(config_for(mosquitto, bridge_ingest), Deaf) as bridge:
        wait_until(lambda: bridge.session.is_ready, what="subscribed at last")
        bridge_publisher.send_numbers(5)

        wait_until(lambda: len(bridge_ingest.payloads()) == 5, what="all are taken")
        assert Deaf.stumbles == 2


def test_protocol_of_the_topic_chooses_the_service(mosquitto, bridge_ingest, bridge_publisher):
    other = Ingest()
    config = config_for(mosquitto, bridge_ingest, ingest_urls=f"thingsboard={other.url}")
    with running(config) as bridge:
        wait_until(lambda: bridge.session.is_ready, what="subscribed")
        for protocol in ("", "/thingsboard", "/json", "/unheard-of", "/"):
            bridge_publisher.send("d", f"to{protocol}".encode(), topic=f"devices/d/telemetry{protocol}")

        wait_until(lambda: len(bridge_ingest.taken) + len(other.taken) == 5, what="all are taken")
    other.close()
    assert set(other.payloads()) == {b"to/thingsboard"}


def test_one_service_away_does_not_stop_another(mosquitto, bridge_ingest, bridge_publisher):
    other = Ingest()
    other.behave = lambda batch: (503, b"")
    with running(config_for(mosquitto, bridge_ingest, ingest_urls=f"thingsboard={other.url}")) as bridge:
        wait_until(lambda: bridge.session.is_ready, what="subscribed")
        for number in range(500):
            bridge_publisher.send("d", b"%d" % number, topic="devices/d/telemetry/thingsboard")
            bridge_publisher.send("d", b"%d" % number)

        wait_until(lambda: len(bridge_ingest.payloads()) == 500, what="the one's messages are taken")
        other.behave = take_all
        wait_until(lambda: len(other.payloads()) == 500, what="the other's too")
    other.close()


def test_deferred_device_keeps_its_order_through_the_broker(mosquitto, bridge_ingest, bridge_publisher):
    bridge_ingest.behave = defer_if(lambda each: each.device in ("d1", "d2"))
    with running(config_for(mosquitto, bridge_ingest)) as bridge:
        wait_until(lambda: bridge.session.is_ready, what="subscribed")
        bridge_publisher.send_numbers(1000)
        wait_until(lambda: len(bridge_ingest.payloads()) == 800, what="the others' are taken")

        bridge_ingest.behave = take_all

        wait_until(lambda: len(bridge_ingest.payloads()) == 1000, what="all are taken")
        assert len(bridge_ingest.taken) == 1000
        assert all(numbers == sorted(numbers) for numbers in bridge_ingest.by_device().values())


def test_many_deferred_messages_of_one_device_do_not_stop_the_others(mosquitto, bridge_ingest, bridge_publisher):
    bridge_ingest.behave = defer_if(lambda each: each.device == "waits")  # needs a broker window above 1,000 messages
    with running(config_for(mosquitto, bridge_ingest)) as bridge:
        wait_until(lambda: bridge.session.is_ready, what="subscribed")
        for number in range(1500):
            bridge_publisher.send("waits", b'{"n":%d}' % number)
        for number in range(500):
            bridge_publisher.send("goes", b'{"n":%d}' % number)

        wait_until(lambda: len(bridge_ingest.payloads()) == 500, what="the other's are taken")
        bridge_ingest.behave = take_all
        wait_until(lambda: len(bridge_ingest.taken) == 2000, what="all are taken")


def test_wrong_password_is_reported_and_tried_again(tmp_path, bridge_ingest, caplog):
    with (
        Broker(tmp_path / "closed", allow_anonymous="false") as broker,
        running(config_for(broker, bridge_ingest)) as bridge,
    ):
        wait_until(lambda: events(caplog).count("broker_refused") >= 2, what="refused more than once")
        assert not bridge.session.is_ready
        assert bridge.are_alive()


def test_refused_subscription_is_reported_and_not_ready(session, caplog):
    codes = [ReasonCode(PacketTypes.SUBACK, identifier=code) for code in (1, 128, 0)]

    session._on_subscribe(None, None, 1, codes, None)

    assert "subscription_refused" in events(caplog)
    assert not session.is_ready


def test_statistics_topic_may_be_refused(session):
    codes = [ReasonCode(PacketTypes.SUBACK, identifier=code) for code in (1, 1, 1, 1, 128)]

    session._on_subscribe(None, None, 1, codes, None)

    assert session.is_ready


def test_broker_that_is_not_there_is_waited_for(tmp_path, bridge_ingest, caplog):
    broker = Broker(tmp_path / "late")
    with running(config_for(broker, bridge_ingest)) as bridge:
        wait_until(lambda: events(caplog).count("broker_away") >= 2, what="tried more than once")
        with broker:
            wait_until(lambda: bridge.session.is_ready, what="subscribed")


def test_ending_before_the_broker_was_ever_there_is_clean(tmp_path, bridge_ingest):
    with running(config_for(Broker(tmp_path / "never"), bridge_ingest)):
        pass


def test_window_counts_back_to_zero(mosquitto, bridge_ingest, bridge_publisher):
    bridge_ingest.behave = lambda batch: (503, b"")
    with running(config_for(mosquitto, bridge_ingest)) as bridge:
        wait_until(lambda: bridge.session.is_ready, what="subscribed")
        bridge_publisher.send_numbers(300)
        wait_until(lambda: bridge.session._unacked == 300, what="all are held")
        mosquitto.stop()
        wait_until(lambda: not bridge.session.is_ready, what="the connection is gone")
        mosquitto.start()
        wait_until(lambda: bridge.session._unacked == 300, what="all are held again")

        bridge_ingest.behave = take_all

        wait_until(lambda: bridge.session._unacked == 0, what="none is held")
        assert bridge.session._unacked_bytes == 0


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
