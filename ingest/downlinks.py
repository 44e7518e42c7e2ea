"""Commands for LoRaWAN devices: worded for the network server that spoke of them last, ended by its events.

Kept in a file that all processes of the service share: where each server has its devices, and the answers that the
registry was not told yet. Where a device is, is learnt from topics only: who sends webhooks hears nothing here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import orjson

from chassis.sqlite import UNUSABLE, Database
from ingest.codecs import Codecs
from ingest.protocols.base import Answer, Order, Worded
from ingest.protocols.flatten import Refused
from ingest.protocols.lorawan import downlinks
from ingest.protocols.lorawan.downlinks import Downlink
from wire import clock
from wire.devices import Codec
from wire.errors import Unavailable

SCHEME = "lora:"
MAX_PLACES = 50_000  # held in memory; others are read from the file
_SCHEMA = (
    "CREATE TABLE places (gateway TEXT, name TEXT, place TEXT NOT NULL, PRIMARY KEY (gateway, name)) WITHOUT ROWID",
    "CREATE TABLE answers (id TEXT PRIMARY KEY, told TEXT NOT NULL) WITHOUT ROWID",
)
CodecOf = Callable[[str], Codec | None]


class Downlinks:
    """What an `ingest.courier.Courier` carries commands to. Thread-safe."""

    def __init__(self, path: Path, codecs: Codecs, codec_of: CodecOf) -> None:
        """`codec_of` gives the codec of a device's type."""
        self._database = Database(path, schema=_SCHEMA)
        self._codecs = codecs
        self._codec_of = codec_of
        self._lock = threading.Lock()  # guards all below
        self._places: dict[tuple[str, str], str] = {}
        self._unsaved: dict[tuple[str, str], str] = {}
        self._courier = threading.Lock()  # held by who words and tells

    @contextmanager
    def hold(self) -> Iterator[None]:
        """See Courier."""
        with self._courier:
            yield

    def note(self, gateway: str, places: Mapping[str, str]) -> None:
        """Note where a server has devices, by their names; written with the next look for commands."""
        with self._lock:
            news = {(gateway, name): place for name, place in places.items()}
            news = {key: place for key, place in news.items() if self._places.get(key) != place}
            if len(self._places) + len(news) > MAX_PLACES:
                self._places.clear()
            self._places |= news
            self._unsaved |= news

    def take(self, answers: Sequence[Answer]) -> None:
        """Keep what servers say of commands until the registry was told. Raises Unavailable: it is not kept."""
        self._write([("INSERT OR REPLACE INTO answers VALUES (?, ?)", (each.id, _dump(each))) for each in answers])

    def word(self, order: Order) -> Worded | Answer | None:
        """Word a command; None: no server spoke of its device yet. Raises Unavailable."""
        self._save()
        place = self._find(order)
        try:
            wanted = downlinks.read(order.name, order.params)
            if place is None:
                return None
            topic, payload = downlinks.word(place, order.id, self._encode(order.device, wanted))
        except Refused as error:
            return Answer(order.id, order.device, error=f"{error.code}: {error.detail}")
        # Queued once at the server, it is not given out again: a frame would be sent twice.
        left_s = max(1.0, (order.deadline_ns - clock.now_ns()) / clock.NS_PER_S)
        return Worded(topic, payload, left_s, qos=1)

    @property
    def has_answers(self) -> bool:
        """Whether there are any."""
        return bool(self._database.read("SELECT 1 FROM answers LIMIT 1"))

    def answers(self) -> list[Answer]:
        """Give the answers that were not told yet."""
        self._save()
        return [Answer(id_, **orjson.loads(told)) for id_, told in self._database.read("SELECT * FROM answers")]

    def forget(self, ids: Collection[str]) -> None:
        """Drop answers that were told. Raises Unavailable."""
        self._write([("DELETE FROM answers WHERE id = ?", (id_,)) for id_ in ids])

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _encode(self, device: str, wanted: Downlink) -> Downlink:
        """Encode an object by the codec of the device type; without one that encodes, the server's is asked."""
        codec = self._codec_of(device) if wanted.content is None else None
        if codec is None:
            return wanted
        encoded = self._codecs.encode(codec, wanted.members, wanted.port)
        if encoded is None:
            return wanted
        content, port = encoded
        if port not in downlinks.PORTS:
            raise Refused("codec", f"codec: fPort {port} is none for applications")
        return wanted._replace(content=downlinks.check_size(content), port=port)

    def _find(self, order: Order) -> str | None:
        gateway = f"{order.tenant}/{order.gateway or order.device}"
        names = [name for name in order.names if name.startswith(SCHEME)]
        with self._lock:
            known = next((self._places[gateway, name] for name in names if (gateway, name) in self._places), None)
        if known is not None:
            return known
        sought = "SELECT place FROM places WHERE gateway = ? AND name = ?"
        return next((row[0] for name in names for row in self._database.read(sought, (gateway, name))), None)

    def _save(self) -> None:
        with self._lock:
            unsaved, self._unsaved = self._unsaved, {}
        self._write([("INSERT OR REPLACE INTO places VALUES (?, ?, ?)", (*key, at)) for key, at in unsaved.items()])

    def _write(self, statements: Sequence[tuple[str, tuple[str, ...]]]) -> None:
        if not statements:
            return
        try:
            with self._database.write() as connection:
                for statement in statements:
                    connection.execute(*statement)
        except UNUSABLE as error:
            raise Unavailable(f"downlinks cannot be written: {error}", code="spool_full") from None


def _dump(answer: Answer) -> str:
    return orjson.dumps({"device": answer.device, "result": answer.result, "error": answer.error}).decode()
