"""The bridge's durable MQTT session: one thread that reads, acknowledges and keeps the connection. Knows no HTTP.

Rules (each has a test): a connection has a number, and an ack is sent only over the connection its message came by;
when the window is full the socket is left unread, so that the broker waits, while pings go on; no exception ends the
thread.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from paho.mqtt.client import ConnectFlags
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from chassis import logs
from chassis.backoff import Backoff
from chassis.settings import split_address
from ingest.bridge import metrics
from ingest.bridge.claims import Claims
from ingest.bridge.client import READERS, Client
from ingest.bridge.config import BridgeConfig, Limits
from ingest.bridge.holds import size_of_all
from ingest.bridge.host_state import HostState
from ingest.bridge.identity import SessionName
from ingest.bridge.lane import Lane, Settled
from ingest.bridge.mailbox import Mailbox
from ingest.bridge.notices import Notices
from ingest.bridge.strays import Strays
from ingest.bridge.subscriptions import CARRIED, DROPPED, Subscriptions
from ingest.framing import Delivery, Ending
from ingest.protocols import SERVICES, service_of
from wire import topics

log = logs.get(__name__)
SUBSCRIBE_TIMEOUT_S = 5.0  # from connecting to SUBACK; a frozen broker accepts connections but says nothing
STEADY_S = 2.0  # a connection that lived so long starts the next back-off anew
TICK_S = 0.25  # longest sleep: bounds how late a ping or a stop is noticed
READ_GAP_S = 0.008  # between reads that did not fill the buffer: mosquitto writes message by message, and a turn for
# each costs 20 us; this saves two thirds of the CPU under load, and a message after a silence does not wait
# (bench/bridge.py)
CLEAR_S, CLEARED_AT_ONCE = 1.0, 1000  # retained telemetry: taken away again so often, so many at a time


class Session:
    """Owner of the client. `run` is the network thread; `stop_reading` and `end` are for any thread."""

    def __init__(
        self,
        config: BridgeConfig,
        lanes: Mapping[str, Lane],
        mailbox: Mailbox,
        limits: Limits,
        claims: Claims | None = None,
    ) -> None:
        self.beats = 0  # turns of the loop; a watchdog sees whether they go on
        self.is_ready = False
        self._limits = limits
        self._lanes = lanes
        self._mailbox = mailbox
        self._pid_file = config.broker_pid_file
        self._name = SessionName(config.broker_session_file)
        self._name_lanes(self._name.name)
        self._client = _open_client(config, self._receive, limits)
        self._news = self._client.claims = claims or Claims()
        own, number = CARRIED[config.bridge_carries], config.bridge_number
        self._subscriptions = Subscriptions(number, config.bridges, self._news.filters, own)
        self._host = HostState(config.sparkplug_host if config.bridge_number == 1 else "")
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_publish = lambda *given: self._host.settle(is_refused=given[3].is_failure)
        self._notices = Notices(self._publish)
        self._epoch, self._is_connected, self._is_new_session = 0, False, False
        self._held: dict[int, Delivery] = {}
        self._unacked = self._unacked_bytes = 0
        self._dropped, self._strays = 0, Strays()
        self._backoff, self._retry_s = Backoff(limits.retry_first_s, limits.retry_most_s), 0.0
        self._since_s = self._heard_s = self._pinged_s = self._next_read_s = self._next_clear_s = 0.0
        self._is_reading = True
        self._is_ending = False

    def stop_reading(self) -> None:
        """Take no more messages; what is held may still be settled."""
        self._is_reading = False
        self._mailbox.wake()

    def end(self) -> None:
        """Acknowledge what is settled, disconnect (the session stays) and leave `run`."""
        self._is_ending = True
        self._mailbox.wake()

    def learn(self, claims: Claims) -> None:
        """Go by other claims of topics from now on."""
        self._news = claims
        self._mailbox.wake()

    def run(self) -> None:
        """Keep the connection and work until `end`."""
        while not self._is_ending:
            self.beats += 1
            try:
                self._turn()
            except Exception:
                metrics.FAULTS.inc()
                log.fault("connection_fault")
                self._drop("fault")
        self._leave()

    def _turn(self) -> None:
        if self._client.socket() is None:
            if self._is_connected:
                self._lose("closed by the broker")
            self._settle_all()
            self._heed_claims()
            self._reconnect_when_due()
            return
        reads = self._may_read()
        self._work(reads)
        if self._client.socket() is not None:
            self._settle_all()
            self._heed_claims()
            self._keep_alive(reads)
        if self._host.is_outdated and self._client.socket() is not None:
            self._drop("another will")

    def _work(self, reads: bool) -> None:
        connection: Any = self._client.socket()
        nap_s = self._next_read_s - time.monotonic() if reads else TICK_S
        is_due = reads and nap_s <= 0
        buffered = is_due and self._client.has_buffered()
        wanted: list[Any] = [self._mailbox, connection] if is_due else [self._mailbox]
        waiting = [connection] if self._client.want_write() else []
        readable, writable, _ = select.select(wanted, waiting, [], 0 if buffered else TICK_S if is_due else nap_s)
        if connection in readable or buffered:
            self._read()
        if writable and self._client.socket() is not None:
            self._client.loop_write()

    def _read(self) -> None:
        self._heard_s = time.monotonic()
        self._client.loop_read()
        if not self._client.read_full:
            self._next_read_s = self._heard_s + READ_GAP_S

    def _may_read(self) -> bool:
        full = self._unacked >= self._limits.window_messages or self._unacked_bytes >= self._limits.window_bytes
        reads = self._is_reading and not full
        metrics.PAUSED.set(0 if reads else 1)
        return reads

    # -- connection ------------------------------------------------------------------------------------------------

    def _reconnect_when_due(self) -> None:
        wait_s = self._retry_s - time.monotonic()
        if wait_s > 0:
            select.select([self._mailbox], [], [], min(wait_s, TICK_S))
            return
        self._since_s = self._heard_s = self._pinged_s = time.monotonic()
        self._client.bequeath(self._host.topic, self._host.will(is_wanted=self._news.has_hosts))
        try:
            self._client.renew(self._held)
        except OSError as error:
            self._postpone(str(error))
            return
        self._is_connected = True
        if self._epoch:
            metrics.RECONNECTS.inc()

    def _postpone(self, reason: str) -> None:
        lived_s = time.monotonic() - self._since_s
        if self._is_connected and lived_s >= STEADY_S:
            self._backoff.reset()
        pause_s = self._backoff.next_s()
        self._retry_s = time.monotonic() + pause_s
        log.warning("broker_away", reason=reason, connection=self._epoch, retry_s=round(pause_s, 1))

    def _lose(self, reason: str) -> None:
        self.is_ready = False
        self._postpone(reason)
        self._is_connected = False
        self._epoch += 1  # from here on no ack of the old connection is sent, however the batch in flight ends
        for lane in self._lanes.values():
            held = lane.cut(self._epoch)
            self._release(held)
            self._held.update((each.mid, each) for each in held)

    def _drop(self, reason: str) -> None:
        """Close the connection from this side without a word; the broker keeps what was not acknowledged."""
        if self._client.socket() is None:
            self._postpone(reason)
            return
        self._client.abandon()
        self._lose(reason)

    def _on_connect(
        self, _client: Any, _userdata: Any, flags: ConnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if reason.is_failure:
            log.error("broker_refused", reason=str(reason))
            return
        log.info("connected", connection=self._epoch, session_present=flags.session_present)
        self._is_new_session = not flags.session_present
        if self._is_new_session:
            self._held.clear()
            self._name_lanes(self._name.renew())
        self._subscriptions.begin(self._client)

    def _name_lanes(self, name: str) -> None:
        for lane in self._lanes.values():
            lane.name_session(name)

    def _on_subscribe(
        self, _client: Any, _userdata: Any, mid: int, codes: list[ReasonCode], _properties: Properties | None
    ) -> None:
        is_granted = self._subscriptions.settle(mid, [code.is_failure for code in codes])
        if is_granted is None:
            return
        if not is_granted:
            log.error("subscription_refused", codes=[str(code) for code in codes])
            return  # and drop the connection after SUBSCRIBE_TIMEOUT_S: a person has to mend the broker's access list
        self.is_ready = True
        log.info("subscribed", connection=self._epoch)
        if self._is_new_session:
            save_session(self._pid_file)

    def _keep_alive(self, reads: bool) -> None:
        # Pings are sent by time alone, also while the socket is left unread: the broker is content with hearing from
        # us. Its answers wait behind the telemetry then, so its silence counts only while we listen.
        now_s = time.monotonic()
        if now_s - self._pinged_s >= self._limits.keepalive_s / 2:
            self._pinged_s = now_s
            if self.is_ready:
                self._client.ping()
        if not reads:
            self._heard_s = now_s
        if now_s - self._heard_s > self._limits.keepalive_s * 1.5:
            self._drop("silent broker")
        elif not self.is_ready and now_s - self._since_s > SUBSCRIBE_TIMEOUT_S:
            self._drop("no answer to connecting")

    # -- messages --------------------------------------------------------------------------------------------------

    def _receive(self, deliveries: list[Delivery]) -> None:
        parts = self._divide(deliveries)  # first what may raise: the counts below must match what the lanes hold
        metrics.MESSAGES.inc(len(deliveries))
        self._unacked += len(deliveries)
        self._unacked_bytes += size_of_all(deliveries)
        metrics.UNACKED.set(self._unacked)
        for lane, part in parts:
            lane.put(part)

    def _divide(self, deliveries: list[Delivery]) -> list[tuple[Lane, list[Delivery]]]:
        services = [service_of(delivery.protocol or delivery.topic) for delivery in deliveries]
        if services.count(services[0]) == len(services):  # nearly always
            return [(self._lane_of(services[0]), deliveries)]
        parts: dict[str, list[Delivery]] = {}
        for service, delivery in zip(services, deliveries, strict=True):
            parts.setdefault(service, []).append(delivery)
        return [(self._lane_of(service), part) for service, part in parts.items()]

    def _lane_of(self, service: str) -> Lane:
        return self._lanes.get(service) or self._lanes[SERVICES[0]]

    def _settle_all(self) -> None:
        for settled in self._mailbox.take():
            self._settle_one(settled)
        while self._client.oversized:
            self._refuse(self._client.oversized.pop(0))
        while self._client.arrivals.notices:
            self._note(*self._client.arrivals.notices.pop(0))
        if passed := self._client.arrivals.passed:
            self._client.acknowledge(passed)
            passed.clear()
        if self.is_ready and self._host.is_due():
            self._tell_host_state(is_online=True)
        self._strays.tell(self._client.arrivals)
        self._clear_retained()

    def _heed_claims(self) -> None:
        claims, client = self._news, self._client
        if claims is client.claims:
            return
        client.claims = claims
        client.arrivals.learn(claims)
        is_connected = client.socket() is not None and client.is_connected()
        self._subscriptions.follow(client, claims.filters, is_connected=is_connected)
        self._host.want(is_wanted=claims.has_hosts)

    def _settle_one(self, settled: Settled) -> None:
        is_current = settled.epoch == self._epoch
        # Of what a cut gave all but those of QoS 0 were released with their connection; what had landed before it not.
        self._release([each for each in settled.deliveries if not each.mid] if settled.is_cut else settled.deliveries)
        mids = [each.mid for each in settled.deliveries if each.mid]
        if not settled.is_acceptable or not is_current or self._client.socket() is None:
            self._go_stale(settled)
        elif mids:
            self._client.acknowledge(mids)
            metrics.ACKED.inc(len(mids))
        for saying in settled.sayings:
            self._publish(saying.topic, saying.payload)
        for delivery, ending in settled.endings:
            metrics.NOTICES.labels("sent" if self._notices.tell(delivery, ending) else "suppressed").inc()

    def _go_stale(self, settled: Settled) -> None:
        # The broker sends them again. Nothing is acknowledged from memory then: mids of a broker that came back
        # without its state name other messages.
        metrics.STALE_ACKS.inc(sum(1 for each in settled.deliveries if each.mid))
        if self._client.socket() is None and settled.epoch == self._epoch - 1:
            self._held.update((each.mid, each) for each in settled.deliveries if each.mid)

    def _release(self, deliveries: list[Delivery]) -> None:
        self._unacked -= len(deliveries)
        self._unacked_bytes -= size_of_all(deliveries)
        metrics.UNACKED.set(self._unacked)

    def _refuse(self, delivery: Delivery) -> None:
        metrics.REFUSED.labels("too_large").inc()
        log.error("message_refused", device=delivery.device, code="too_large")
        metrics.MESSAGES.inc()
        self._notices.tell(delivery, Ending(0, "refused", "too_large", "a message of more than 1 MiB"))
        if delivery.mid:
            self._client.acknowledge([delivery.mid])

    def _tell_host_state(self, *, is_online: bool) -> None:
        if self._host.is_willed and self._client.socket() is not None:
            self._client.publish(self._host.topic, self._host.say(is_online=is_online), 1, retain=True)

    def _note(self, topic: str, payload: bytes) -> None:
        if topic == self._host.topic:
            self._host.hear(payload)
        if topic != DROPPED or not payload.isdigit():
            return
        dropped = int(payload)
        if dropped > self._dropped:
            log.error("broker_dropped", messages=dropped)
        self._dropped = dropped
        metrics.BROKER_DROPPED.set(dropped)

    def _clear_retained(self) -> None:
        # A device may say `retain` with any message, on topics without number: what the broker kept of them would
        # grow for ever, in its memory and in each of its saves.
        found, now_s = self._client.arrivals.retained, time.monotonic()
        if not found or now_s < self._next_clear_s or not self.is_ready or self._client.want_write():
            return
        self._next_clear_s = now_s + CLEAR_S
        for topic in [found.pop() for _ in range(min(len(found), CLEARED_AT_ONCE))]:
            self._client.publish(topic, b"", retain=True)
            metrics.RETAINED_CLEARED.inc()

    def _publish(self, topic: str, payload: bytes) -> None:
        if self.is_ready and not self._client.want_write():  # a broker that does not read gets no more to read
            self._client.publish(topic, payload)

    def _leave(self) -> None:
        self._settle_all()
        if not self._subscriptions.is_wanted and self.is_ready and not self._unacked:
            self._name.forget()
        deadline_s = time.monotonic() + 1.0
        if self._client.socket() is None:
            return
        self._tell_host_state(is_online=False)  # no will is sent after a DISCONNECT
        self._client.disconnect()
        while (connection := self._client.socket()) is not None and time.monotonic() < deadline_s:
            select.select([], [cast("Any", connection)], [], 0.1)
            self._client.loop_write()
        if self._client.socket() is not None:
            self._drop("leaving")


def _open_client(config: BridgeConfig, sink: Callable[[list[Delivery]], None], limits: Limits) -> Client:
    is_media = config.bridge_carries == "media"  # these come one by one, whole: nothing is won by cutting buffers
    reader, version = READERS["paho" if is_media else config.bridge_reader], 5 if config.broker_protocol == "5" else 4
    client = reader(config.broker_username, sink, version=version)
    client.username_pw_set(config.broker_username, config.broker_password or None)
    client.place = (config.bridge_number, max(config.bridges, config.bridge_number))
    if config.broker_ca is not None:
        client.tls_set(str(config.broker_ca))
    at_once = limits.window_messages if is_media else 0
    client.aim(*split_address(config.broker, topics.MQTT_PORT), limits.keepalive_s, at_once)
    return client


def save_session(pid_file: Path | None) -> None:
    """Ask mosquitto to save now (SIGUSR1): a crash before its first save would lose the new session itself."""
    if pid_file is None:
        return
    try:
        pid = int(pid_file.read_text())
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        if not name.startswith("mosquitto"):
            raise ProcessLookupError(f"process {pid} is {name!r}")
        os.kill(pid, signal.SIGUSR1)
    except (OSError, ValueError) as error:
        log.warning("session_not_saved", reason=str(error))
