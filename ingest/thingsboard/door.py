"""The door itself: who connects, who is let in, who has to go.

A device shows its access token, `{device_id}.{secret}`, as user name, or its id and secret as user name and password;
who has neither may ask to be provisioned. Wrong secrets slow down as those over HTTP do.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from typing import NamedTuple

from chassis import ending, logs
from chassis.guessing import DeviceGuesses
from ingest.gate import Gate, Known
from ingest.reports import AuditEntry, Reports
from ingest.thingsboard import packets
from ingest.thingsboard.device import Device, Services
from ingest.thingsboard.gateway import Gateway
from ingest.thingsboard.link import Link
from ingest.thingsboard.metrics import CONNECTIONS, ENDED, FAULTS, LOGINS, MESSAGES
from ingest.thingsboard.packets import Connect, PacketError, Publish
from ingest.thingsboard.registry import REMOTE_IP, Registry
from ingest.thingsboard.session import Session
from wire import clock
from wire.devices import parse_bearer
from wire.errors import Forbidden, HeadwaterError, PeerUnavailable, TooManyRequests, Unauthorized
from wire.thingsboard import MAX_INFLIGHT

log = logs.get(__name__)
PROVISION = "provision"  # the user name of who has no credential yet
LOST = (ConnectionError, TimeoutError, asyncio.IncompleteReadError, ssl.SSLError, OSError)


class LogIn(NamedTuple):
    """Who somebody has proved to be."""

    device: Known
    token: str
    secret: str
    remote_ip: str
    revision: int  # of the registry before it was asked: what changed since is not in it


class _Guest(NamedTuple):
    """A connection of a device that is logged in, and the task that serves it."""

    known: LogIn
    session: Session
    task: asyncio.Task[None] | None

    def cut(self, why: str) -> None:
        """End it, even if it waits for room and so would not notice."""
        self.session.link.abort(why)
        if self.task is not None:
            self.task.cancel()


class Access:
    """Lets devices in. Blocks: it is asked in threads. Thread-safe."""

    def __init__(self, gate: Gate, reports: Reports) -> None:
        self._gate = gate
        self._reports = reports
        self._guesses = DeviceGuesses()

    def log_in(self, asked: Connect, remote_ip: str) -> LogIn:
        """Check what a client shows.

        Raises:
            Unauthorized, Forbidden, TooManyRequests, PeerUnavailable: see Gate.authenticate and DeviceGuesses.wrong.
        """
        shown = (asked.username, asked.password) if asked.password else parse_bearer(asked.username)
        device_id, secret = shown or ("", "")
        revision = self._gate.revision
        try:
            device, credential = self._gate.authenticate(device_id, secret, remote_ip)
        except (Unauthorized, Forbidden) as error:
            self._note_wrong(device_id, remote_ip, error)
            raise
        self._reports.note_seen(device.id, clock.now_ns(), credential)
        return LogIn(device, f"{device.id}.{secret}", secret, remote_ip, revision)

    def is_current(self, known: LogIn) -> bool:
        """Tell whether nothing has changed at the registry since a device proved who it is."""
        return self._gate.revision == known.revision

    def still_in(self, known: LogIn) -> bool:
        """Tell whether a device would be let in again; while nobody knows, it would."""
        try:
            device, _ = self._gate.authenticate(known.device.id, known.secret, known.remote_ip)
        except (Unauthorized, Forbidden):
            return False
        except PeerUnavailable:
            return True
        return device.is_gateway == known.device.is_gateway

    def _note_wrong(self, device_id: str, remote_ip: str, error: HeadwaterError) -> None:
        is_known = self._gate.is_cached(device_id)
        if is_known:  # a stranger's guesses of ids would fill the audit
            said = f"over ThingsBoard's MQTT: {error.detail}"
            entry = AuditEntry(f"device:{device_id}", "telemetry.credential_refused", f"device:{device_id}", said,
                               remote_ip, self._gate.tenant_of(device_id))  # fmt: skip
            self._reports.note_attempt(entry)
        if isinstance(error, Unauthorized):
            self._guesses.wrong(device_id if is_known else "", remote_ip)


class Door:
    """All connections; used from the event loop only."""

    def __init__(self, access: Access, services: Services) -> None:
        self._access = access
        self._services = services
        self._limits = services.limits
        self._strangers: dict[Link, None] = {}  # connections that are not logged in, oldest first
        self._inside = 0
        self._devices: dict[str, list[_Guest]] = {}  # logged in, oldest first

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        link = Link(reader, writer, self._limits)
        REMOTE_IP.set(link.remote_ip)  # of this connection's calls: each has a context of its own
        self._strangers[link] = None
        if len(self._strangers) > self._limits.strangers:  # who only holds a place loses it to who logs in
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.abort("too_many")
        try:
            await self._welcome(link)
        except asyncio.CancelledError:
            pass  # it was cut, and that was counted
        except PacketError as error:
            ENDED.labels("not_mqtt").inc()
            log.info("not_mqtt", reason=str(error))
        except TimeoutError:
            ENDED.labels("silent").inc()
        except LOST:
            ENDED.labels("lost").inc()
        except Exception as error:
            ending.end_if_short(error)
            FAULTS.inc()
            log.fault("connection_fault")
        finally:
            self._strangers.pop(link, None)
            await link.close()

    async def check_all(self) -> None:
        """Have those go who would not be let in any more."""
        await self._check([guest for guests in self._devices.values() for guest in guests])

    def end_all(self) -> None:
        """End all connections: what is not acknowledged comes again."""
        for guests in list(self._devices.values()):
            for guest in guests:
                guest.session.link.finish()

    async def _check(self, guests: Iterable[_Guest]) -> None:
        for guest in await asyncio.to_thread(self._find_gone, guests):
            guest.cut("not_allowed_any_more")

    def _find_gone(self, guests: Iterable[_Guest]) -> list[_Guest]:
        return [guest for guest in guests if not self._access.still_in(guest.known)]

    async def _welcome(self, link: Link) -> None:
        asked = await self._greet(link)
        session = Session(link, asked.keepalive_s, self._limits)
        if asked.username == PROVISION and not asked.password:
            link.send(self._yes(link.version))
            waiting = link.widen(self._limits.greeting_bytes)
            async with asyncio.timeout(self._limits.provision_s):
                await session.converse(waiting, Newcomer(session, self._services.registry))
            return
        known = await self._let_in(asked, link)
        if known is not None:
            link.send(self._yes(link.version))
            await self._converse(session, known)

    async def _greet(self, link: Link) -> Connect:
        async with asyncio.timeout(self._limits.greeting_s):
            waiting = await link.read(self._limits.greeting_s)
            while not waiting:
                waiting = await link.read(self._limits.greeting_s)
        asked = packets.read_connect(waiting[0])
        link.version = asked.version
        return asked

    async def _let_in(self, asked: Connect, link: Link) -> LogIn | None:
        """Check who asks; None: it was told that it may not come in."""
        code = packets.NOT_AUTHORIZED
        try:
            known = await asyncio.to_thread(self._access.log_in, asked, link.remote_ip)
        except TooManyRequests:
            LOGINS.labels("back_off").inc()
        except PeerUnavailable:
            LOGINS.labels("unavailable").inc()
            code = packets.UNAVAILABLE
        except HeadwaterError as error:
            LOGINS.labels(error.code).inc()
        else:
            if self._inside < self._limits.connections:
                LOGINS.labels("ok").inc()
                return known
            LOGINS.labels("full").inc()
            code = packets.UNAVAILABLE
        link.send(packets.connack(link.version, code))
        return None

    def _yes(self, version: int) -> bytes:
        return packets.connack(version, receive_maximum=MAX_INFLIGHT, max_bytes=self._limits.packet_bytes)

    async def _converse(self, session: Session, known: LogIn) -> None:
        kind = Gateway if known.device.is_gateway else Device
        device = kind(session, known.device, known.token, self._services)
        worker, guest = asyncio.create_task(device.work()), _Guest(known, session, asyncio.current_task())
        self._enter(guest)
        try:
            if not self._access.is_current(known):  # it may have been revoked before it was among those to be checked
                await self._check([guest])
            await session.converse(session.link.widen(self._limits.packet_bytes), device)
        finally:
            worker.cancel()
            device.leave()
            self._leave(guest)

    def _enter(self, guest: _Guest) -> None:
        CONNECTIONS.inc()
        self._inside += 1
        self._strangers.pop(guest.session.link, None)
        device_id = guest.known.device.id
        guests = self._devices.setdefault(device_id, [])
        guests.append(guest)
        for older in guests[: -self._limits.of_one_device]:
            older.cut("newer_connection")
        self._services.family.note(device_id, is_online=True)

    def _leave(self, guest: _Guest) -> None:
        CONNECTIONS.dec()
        self._inside -= 1
        known = guest.known
        guests = self._devices[known.device.id]
        guests.remove(guest)
        if not guests:
            del self._devices[known.device.id]
            self._services.family.note(known.device.id, is_online=False)


class Newcomer:
    """The speaker of a client without a credential: it may ask to be provisioned, and nothing else."""

    def __init__(self, session: Session, registry: Registry) -> None:
        self._session = session
        self._registry = registry

    async def take(self, message: Publish) -> None:
        """See Speaker."""
        MESSAGES.labels("provision").inc()
        if message.topic != "/provision/request":
            raise PacketError("who has no credential can only ask to be provisioned")
        try:
            answer = await asyncio.to_thread(self._registry.provision, message.payload)
        except PeerUnavailable:
            answer = {"status": "FAILURE", "errorMsg": "the registry is away, try again"}
        self._session.tell("provision", "/provision/response", answer)
        self._session.acknowledge(message)

    def listen(self) -> None:
        """See Speaker: it is told nothing unasked."""
