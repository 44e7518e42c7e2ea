"""What every decoder gives and gets: pure functions from bytes to records or reasons, that know no store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from wire.devices import DeviceType
from wire.points import FieldValue

MAX_DEPTH = 16
MAX_FIELDS = 256
MAX_KEY_BYTES = 256
MAX_STRING_BYTES = 64 * 1024
MAX_MESSAGE_BYTES = 256 * 1024
MAX_INFLATED_BYTES = 8 * 1024 * 1024
MAX_RECORDS = 20_000  # of one message: 8 MiB of `{}` would otherwise become millions of faults
MAX_ARRAY = 32  # a longer array of scalars becomes one JSON string


@dataclass(slots=True, frozen=True)
class Fault:
    """Why a record, or one field of it (`field`), is not taken; `index` counts records from 0."""

    index: int
    code: str  # of wire.errors.REASONS
    detail: str
    field: str | None = None


@dataclass(slots=True, frozen=True)
class Payload:
    """Bytes of a device as a network carried them: its type may have a codec for them."""

    content: bytes
    port: int  # that says what they are (FPort)
    field: str  # of the record: holds them as long as nobody decoded them


@dataclass(slots=True)
class Record:
    """One decoded reading, before it is known by whom and whether its device type agrees.

    Where a message names several devices, no two of its records have the same `index`.
    """

    index: int
    fields: dict[str, FieldValue]
    time_ns: int | None = None  # None: the device sent no time
    flags: int = 0  # wire.points flags
    ahead_ns: int | None = None  # of the device's clock, where its time was not taken
    measurement: str = "telemetry"
    tags: dict[str, str] = field(default_factory=dict)
    boot_id: str | None = None
    seq: int | None = None
    device: str | None = None  # external name with its scheme (`wire.external`), as sent; None: the sender itself
    is_relative: bool = False  # its time was counted from the arrival: sent again, it has another
    payload: Payload | None = None


@dataclass(slots=True, frozen=True)
class Description:
    """What a device tells of one of its fields; what is empty is not said, and what was said before holds."""

    field: str
    measurement: str = "telemetry"
    device: str | None = None  # as in Record
    unit: str = ""
    label: str = ""  # its name for people
    kind: str = ""  # what it measures: temperature, humidity, ...
    low: float | None = None  # no value is below
    high: float | None = None  # none is above


@dataclass(slots=True, frozen=True)
class Answer:
    """What became of a command: with an `error` it failed, else it succeeded with the result."""

    id: str
    device: str
    result: Any = None
    error: str | None = None


@dataclass(slots=True)
class Decoded:
    """All of a message: its good records and its faults."""

    records: list[Record] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    is_unreadable: bool = False  # the whole message is at fault, not single records of it
    presence: dict[str, bool] = field(default_factory=dict)  # by external name: who is online, and who is not
    is_event: bool = False  # rightly without a reading: an answer, a command, a state that is no measurement
    absent: int = 0  # values of which the sender says that there are none now
    # The message with all that only its session knows: what has to wait of it is read alone later. None: as it came.
    restated: Callable[[], bytes] | None = None
    described: list[Description] = field(default_factory=list)  # best effort: told again, it is not news
    places: dict[str, str] = field(default_factory=dict)  # by external name: where the sender takes commands for it
    answers: list[Answer] = field(default_factory=list)  # to commands; of devices by external names
    joins: bool = False  # records of one device, measurement and time are one reading: its values came one by one


@dataclass(slots=True, frozen=True)
class Context:
    """What a decoder may know besides the bytes."""

    received_ns: int
    type: DeviceType | None = None
    content_type: str = ""
    topic: str = ""
    transport: str = "http"  # or "mqtt"
    is_retained: bool = False  # the broker kept it: old, whenever it was sent
    is_gateway: bool = False  # the sender may speak for others
    sender: str = ""  # its tenant and id
    # External names that stand for a device the sender may speak for: ask with `in`, and let what it raises pass.
    # Not all of them may be used at the end: a device may be disabled, a rate limit reached.
    names: Container[str] = frozenset()


@dataclass(slots=True, frozen=True)
class Due:
    """What a host wants to be done now, and in how many seconds it wants to be asked again (0: no need)."""

    sayings: list[tuple[str, bytes]] = field(default_factory=list)  # topics and payloads to publish
    again_s: float = 0.0


@dataclass(slots=True, frozen=True)
class Order:
    """A command of the registry, as it is claimed (docs/commands.md)."""

    id: str
    device: str
    tenant: str
    gateway: str | None  # that the device is seen through
    names: list[str]  # its external names
    name: str
    params: Any
    attempt: int
    deadline_ns: int


@dataclass(slots=True, frozen=True)
class Worded:
    """A command as its device reads it, to be published; without an answer it is given out again after `retry_s`."""

    topic: str
    payload: bytes
    retry_s: float
    qos: int = 0


@runtime_checkable
class Words(Protocol):
    """Words commands for the devices of a protocol, and knows what became of them. Used by one thread at a time."""

    def word(self, order: Order) -> Worded | Answer | None:
        """Word a command; None: its device cannot be reached now. Raises Unavailable."""
        ...

    @property
    def has_answers(self) -> bool:
        """Whether there are any; for any thread."""
        ...

    def answers(self) -> list[Answer]:
        """Give the answers of devices that were not told yet."""
        ...

    def forget(self, ids: Collection[str]) -> None:
        """Note that these commands have ended. Raises Unavailable."""
        ...


@runtime_checkable
class Host(Protocol):
    """Decodes a protocol whose messages mean something only after those before them. Used by one thread at a time.

    What messages change holds after `commit`; `rollback` forgets it: what could not be kept comes again. One whose
    devices take commands is a `Words`, too.
    """

    def decode(self, content: bytes, context: Context) -> Decoded:
        """See Decoder."""
        ...

    def commit(self) -> None:
        """Make what was decoded since the last call hold. Raises Unavailable: it does not."""
        ...

    def rollback(self) -> None:
        """Forget what was decoded since the last commit."""
        ...

    def due(self) -> Due:
        """Give what is to be done now."""
        ...

    def close(self) -> None:
        """Close what it keeps its state in."""
        ...


Decoder = Callable[[bytes, Context], Decoded]
