"""The part of a fleet that runs in one process: its devices, their connections, their books."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from simulators.commander import Commander
from simulators.control import ControlBook, DeviceControl
from simulators.device import Device, Habits
from simulators.dice import Dice
from simulators.fleet import Fleet, Pace, Seat
from simulators.http import Endpoint, parse_url
from simulators.journal import Journal
from simulators.ledger import Ledger
from simulators.mqtt import MqttClient, MqttSettings
from simulators.options import Options
from simulators.outbox import Keep, Login, Sender
from simulators.payloads import FORMATS
from simulators.platform_api import PlatformApi, read_token
from simulators.poster import HttpSender, HttpSettings
from simulators.probe import Probe
from simulators.registration import Member, renew
from simulators.rhythm import Rhythm, make_rhythm
from simulators.scenario import Group, Phase
from simulators.sparkplug import SPARKPLUG, EdgeNode
from simulators.stats import Durations
from simulators.tally import Tally

FAST_HZ = 100.0  # a device faster than this tells time in us: in ms its times would run ahead of the clock
_DEFAULT_HZ = 1.0
_BACKLOG_TOTAL = 200_000  # readings that all devices together may keep while they cannot send; about 80 MB
_BACKLOG_DEVICE = 2_000
# Acknowledged readings that are kept until the acks topic covers them: all devices together about 30 MB.
_OUTBOX_DEVICE, _OUTBOX_LEAST, _OUTBOX_TOTAL = 500, 20, 100_000
_STANDING_DRAIN_S = 1.0
_DAY_BEGINS_S = 1_790_071_200.0  # 2026-09-22T10:00:00Z: the things of a run that ends live on that day, so that a
# seed gives the same readings whenever it is played

SenderFactory = Callable[[Login], Sender]


@dataclass(frozen=True, slots=True)
class Order:
    """What one process has to do; it travels to that process."""

    options: Options
    start_ns: int
    members: tuple[tuple[int, Member], ...]  # with their numbers in the whole fleet
    logins: tuple[Login, ...]  # in the same order
    ledger: Path | None  # exists already
    is_probing: bool  # measures how long readings take to become visible
    parts: int = 1  # how many processes share the fleet


def deal(order: Order, parts: int) -> list[Order]:
    """Share a fleet out: every n-th device to each process."""
    options, start_ns, ledger = order.options, order.start_ns, order.ledger
    return [
        Order(options, start_ns, order.members[part::parts], order.logins[part::parts], ledger, part == 0, parts)
        for part in range(parts)
    ]


def make_rhythms(options: Options, groups: Sequence[Group]) -> dict[str, Rhythm]:
    """Give each group its rhythm.

    Raises:
        ValueError: more faults than readings, or a group that never sends.
    """
    phases: dict[str, tuple[Phase, ...]] = {
        group.name: scenario.phases for scenario in options.scenarios for group in scenario.groups
    }
    return {
        group.name: make_rhythm(
            group, phases[group.name], options.rate_hz or group.rate_hz or _DEFAULT_HZ, options.faults
        )
        for group in groups
    }


def ts_unit_ns(options: Options) -> int:
    """Give the ns per unit of the time that devices send: ms, or us when some are too fast for it."""
    rhythms = make_rhythms(options, options.groups)
    return 1_000 if any(rhythm.fastest_hz > FAST_HZ for rhythm in rhythms.values()) else 1_000_000


def boot_id(options: Options, start_ns: int, device_id: str) -> str:
    """Name a device's first boot; another run gives another name, else its readings would be duplicates."""
    return hashlib.blake2b(f"{options.seed}/{start_ns}/{device_id}".encode(), digest_size=6).hexdigest()


class Squad:
    """Runs its devices from the ramp to the last acknowledgement; used once, inside an event loop."""

    def __init__(self, order: Order, keep: Keep | None = None) -> None:
        """`keep`: what to do with credentials got in the place of refused ones; None: none are got."""
        self._order, self._keep = order, keep
        options = order.options
        self._tls = ssl.create_default_context(cafile=str(options.ca)) if options.ca else None
        self._endpoint: Endpoint = parse_url(options.url, self._tls)
        self._ts_ns = ts_unit_ns(options)
        self._journal = Journal(Ledger(order.ledger) if order.ledger else None)
        self._control = ControlBook()
        self._apis: list[PlatformApi] = []
        self._registry: PlatformApi | None = None
        self._fleet = Fleet(self._make_seats(), self._pace(), self._journal)
        self._visible_ms = Durations()

    def stop(self) -> None:
        """End the taking of readings; what was taken is still delivered."""
        self._fleet.stop()

    def tally(self) -> Tally:
        """Give the counts so far."""
        tally = self._journal.tally()
        tally.control.counts = self._control.counts
        tally.waiting, tally.devices = self._fleet.backlog, self._fleet.joined
        tally.visible_ms, tally.steady_rate = self._visible_ms, self._fleet.steady.rate()
        return tally

    async def run(self) -> Tally:
        """Send, wait for what is unacknowledged, disconnect.

        Raises:
            OSError: the ledger cannot be written.
            PlatformError: the operator's token cannot be read.
        """
        options, fleet, journal = self._order.options, self._fleet, self._journal
        self._start_probe()
        commander = self._start_commander()
        keeper = fleet.watch(asyncio.create_task(journal.keep(), name="ledger"))
        waiting = 0
        try:
            await fleet.run()
            if commander is not None:
                await commander.settle(options.drain_s)
            await fleet.drain(_STANDING_DRAIN_S if options.duration_s is None else options.drain_s)
            waiting = fleet.backlog
        finally:
            for api in self._apis:
                api.close()
            await fleet.close()
            journal.end()
            await keeper
        journal.errors.update(fleet.shortfall())
        tally = self.tally()
        tally.waiting, tally.control = waiting, self._control
        return tally

    def _start_commander(self) -> Commander | None:
        order = self._order
        orders = order.options.orders.share(order.parts)
        if not orders.commands_hz and not orders.desired_hz:
            return None
        commander = Commander(self._operator(), orders, self._control)
        options, members = order.options, [member for _, member in order.members]
        commanded = [each.device_id for each in members if options.answers_of(each.group) is not None]
        twinned = [each.device_id for each in members if options.firmware_of(each.group) is not None]
        self._fleet.beside(commander.run(commanded, twinned), "commander")
        return commander

    def _operator(self) -> PlatformApi:
        api = PlatformApi(self._endpoint, read_token(self._order.options.token_file))
        self._apis.append(api)
        return api

    async def _renew(self, device_id: str) -> Login | None:
        assert self._keep is not None
        if self._registry is None:
            self._registry = self._operator()
        login = await renew(self._registry, device_id)
        if login is not None:
            self._keep(login)
        return login

    def _start_probe(self) -> None:
        order, options = self._order, self._order.options
        # Where clocks are wrong on purpose the newest reading is not the latest one: nothing could be seen.
        has_wrong_clocks = any(rates.clock for rhythm in self._rhythms.values() for rates in rhythm.faults)
        if not order.is_probing or not options.register or options.duration_s is None or has_wrong_clocks:
            return
        api = self._operator()
        names = {index: member.device_id for index, member in order.members}
        probe = Probe(api, self._journal, names, self._ts_ns)
        self._visible_ms = probe.visible_ms
        self._fleet.beside(probe.run(), "probe")

    def _make_seats(self) -> list[Seat]:
        order, base_s, seats = self._order, self._pace().base_s, []
        self._rhythms = make_rhythms(order.options, list({m.group.name: m.group for _, m in order.members}.values()))
        odd = any(rates.late or rates.clock for rhythm in self._rhythms.values() for rates in rhythm.faults)
        habits = self._habits(has_odd_times=odd)
        network = Dice(f"{order.options.seed}/network/{order.members[0][0]}")
        make_sender = self._sender_factory(network)
        for (index, member), login in zip(order.members, order.logins, strict=True):
            device_id = member.device_id
            dice = Dice(f"{order.options.seed}/{device_id.removeprefix(order.options.prefix)}")
            model = member.group.make(dice, base_s, member.number)
            device = Device(index, device_id, boot_id(order.options, order.start_ns, device_id), habits, model, dice)
            device.sender = sender = make_sender(login)
            if isinstance(sender, MqttClient):
                sender.control = self._make_control(member)
                if order.options.protocol == SPARKPLUG:
                    kinds = {name: field["type"] for name, field in member.group.fields.items()}
                    sender.edge = EdgeNode(device_id, kinds)
            seats.append(Seat(device, sender, self._rhythms[member.group.name], dice.random()))
        return seats

    def _make_control(self, member: Member) -> DeviceControl | None:
        options = self._order.options
        answers, firmware = options.answers_of(member.group), options.firmware_of(member.group)
        if answers is None and firmware is None:
            return None
        dice = Dice(f"{options.seed}/commands/{member.device_id.removeprefix(options.prefix)}")
        return DeviceControl(member.device_id, answers, firmware, dice, self._control)

    def _habits(self, *, has_odd_times: bool) -> Habits:
        options = self._order.options
        limit = max(50, options.batch * 2, min(_BACKLOG_DEVICE, _BACKLOG_TOTAL // options.devices))
        return Habits(self._ts_ns, options.size, limit, options.batch > 1, has_odd_times, options.protocol)

    def _sender_factory(self, network: Dice) -> SenderFactory:
        options, journal, renew = self._order.options, self._journal, self._renew if self._keep else None
        if options.transport == "http":
            spoken = FORMATS[options.protocol]
            http = HttpSettings(self._endpoint, spoken.path, batch=options.batch, media_type=spoken.media_type)
            return lambda login: HttpSender(http, login, journal, network, renew)
        host, port = options.mqtt
        tls = (self._tls or ssl.create_default_context()) if options.mqtt_tls else None
        mqtt = MqttSettings(
            host,
            port,
            options.version,
            options.qos,
            options.window,
            keepalive_s=options.keepalive_s,
            tls=tls,
            topic=options.topic,
            outbox=_outbox(options),
        )
        return lambda login: MqttClient(mqtt, login, journal, network, renew)

    def _pace(self) -> Pace:
        order, options = self._order, self._order.options
        base_s = order.start_ns / 1e9 if options.duration_s is None else _DAY_BEGINS_S
        return Pace(options.ramp_hz / order.parts, options.duration_s, options.drain_s, base_s)


def _outbox(options: Options) -> int:
    if options.protocol == SPARKPLUG:
        return 0  # its readings carry no numbers that an acknowledgement could name
    if options.outbox is not None or not options.register:
        return options.outbox or 0  # a bare broker has nobody who publishes on that topic
    return max(_OUTBOX_LEAST, min(_OUTBOX_DEVICE, _OUTBOX_TOTAL // options.devices))
