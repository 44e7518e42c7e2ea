"""Where the feed comes from: one MQTT connection to the broker, for as long as the service lives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from chassis import logs
from chassis.settings import split_address
from chassis.workers import Workers
from wire import topics

log = logs.get(__name__)
KEEPALIVE_S = 30
MAX_RECONNECT_S = 5  # a page that is watched should not wait longer for a broker that is back


class FeedSource:
    """Subscribes to the writer's feed and hands each message on; reconnects for ever.

    Quality of service 0 and a clean session: what was missed while away is in the store, and pages ask there first.
    """

    def __init__(self, broker: str, username: str, password: str, on_message: Callable[[bytes], None]) -> None:
        self._host, self._port = split_address(broker, topics.MQTT_PORT)
        self._on_message = on_message
        self.is_connected = False
        # The broker takes the user name for the client id, so a second one of the same name would cut off the first.
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=username, clean_session=True)
        self._client.username_pw_set(username, password)
        self._client.reconnect_delay_set(min_delay=1, max_delay=MAX_RECONNECT_S)
        self._client.on_connect = self._connected
        self._client.on_disconnect = self._disconnected
        self._client.on_message = lambda _client, _data, message: self._on_message(bytes(message.payload))

    def start(self, workers: Workers) -> None:
        """Run in a thread of `workers` until they stop."""
        workers.start("feed-source", self._run)
        workers.start("feed-source-stop", lambda: self._stop_with(workers))

    def health(self) -> str:
        """Give "ok", or what is wrong."""
        return "ok" if self.is_connected else f"no connection to the broker {self._host}:{self._port}"

    def _run(self) -> None:
        self._client.connect_async(self._host, self._port, keepalive=KEEPALIVE_S)
        self._client.loop_forever(retry_first_connection=True)

    def _stop_with(self, workers: Workers) -> None:
        workers.stopping.wait()
        self._client.disconnect()

    def _connected(self, client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            log.warning("feed_refused", reason=str(reason))
            return
        client.subscribe(topics.FEED, qos=0)
        self.is_connected = True
        log.info("feed_connected", broker=f"{self._host}:{self._port}")

    def _disconnected(self, _client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if self.is_connected and reason.is_failure:  # else it was ended by `stop` or by an orderly stop of the broker
            log.warning("feed_disconnected", reason=str(reason))
        self.is_connected = False
