"""How the simulated things behave: small physical models, driven by the time they are given and seeded noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import orjson

from simulators.dice import Dice

Values = dict[str, float | int | bool | str]
_DAY_S = 86_400.0
_MAX_STEP_S = 30.0  # after a pause a thing goes on from where it was, it does not jump


def _toward(value: float, target: float, dt_s: float, tau_s: float) -> float:
    """First-order approach: 63 % of the way in `tau_s`."""
    return target + (value - target) * math.exp(-dt_s / tau_s)


def _clamp(value: float, low: float, high: float) -> float:
    return low if value < low else min(high, value)


class _Watch:
    """Time since the last look, never negative, never more than a step that the models can take."""

    def __init__(self, now_s: float) -> None:
        self._last_s = now_s

    def step_s(self, now_s: float) -> float:
        step_s = _clamp(now_s - self._last_s, 0.0, _MAX_STEP_S)
        self._last_s = max(self._last_s, now_s)
        return step_s


class Greenhouse:
    """A bay: day curve, roof window with hysteresis, heating at night, soil that dries and is irrigated."""

    DRY, WET = 27.0, 41.0  # soil moisture at which irrigation starts and stops, %
    OPEN_AT, CLOSE_AT, HEAT_BELOW = 27.0, 23.5, 16.0  # Cel

    def __init__(self, rng: Dice, now_s: float) -> None:
        self._rng, self._watch = rng, _Watch(now_s)
        self._offset = rng.gauss(0.0, 0.8)  # bays differ
        self._cloud = rng.uniform(0.5, 1.0)
        self._soil = rng.uniform(self.DRY + 0.3, self.WET)
        self._co2 = rng.uniform(430.0, 600.0)
        self._is_open = self._is_irrigating = False
        self._damp = 0.0  # what irrigation adds to the humidity, %
        sun, outside = self._weather(now_s)
        self._temp = max(self.HEAT_BELOW, outside + 5 + 12 * sun)

    def values(self, now_s: float) -> Values:
        dt_s = self._watch.step_s(now_s)
        self._cloud = _clamp(self._cloud + self._rng.gauss(0.0, 0.01) * math.sqrt(dt_s), 0.35, 1.0)
        sun, outside = self._weather(now_s)
        self._heat(sun, outside, dt_s)
        self._water(sun, dt_s)
        self._breathe(sun, dt_s)
        noise = self._rng.gauss
        humidity = 92.0 - 2.0 * (self._temp - 12.0) + self._damp - (6.0 if self._is_open else 0.0) + noise(0.0, 0.3)
        return {
            "temp": round(self._temp + noise(0.0, 0.04), 2),
            "humidity": round(_clamp(humidity, 28.0, 98.5), 1),
            "soil_moisture": round(self._soil + noise(0.0, 0.05), 2),
            "light": round(max(0.0, 78_000 * sun * (1 + noise(0.0, 0.01)))),
            "co2": round(self._co2 + noise(0.0, 2.0)),
            "window_open": self._is_open,
            "mode": self._mode(outside),
        }

    def _weather(self, now_s: float) -> tuple[float, float]:
        """Sun behind clouds, 0 to 1, and the temperature outside."""
        day = (now_s % _DAY_S) / _DAY_S
        sun = max(0.0, math.sin(math.pi * (day * 24 - 6) / 12)) * self._cloud
        return sun, 12.0 + self._offset + 6.0 * math.sin(2 * math.pi * (day - 9 / 24))

    def _heat(self, sun: float, outside: float, dt_s: float) -> None:
        closed = max(self.HEAT_BELOW, outside + 4 + 20 * sun)
        target = outside + 3 + 6 * sun if self._is_open else closed
        self._temp = _toward(self._temp, target, dt_s, 240.0 if self._is_open else 600.0)
        self._is_open = self._temp > (self.CLOSE_AT if self._is_open else self.OPEN_AT)

    def _water(self, sun: float, dt_s: float) -> None:
        if self._is_irrigating:
            self._soil += 0.06 * dt_s  # four minutes from dry to wet
        else:
            self._soil -= (4.0 + 10.0 * sun) / 3600 * dt_s
        self._is_irrigating = self._soil < (self.WET if self._is_irrigating else self.DRY)
        self._damp = _toward(self._damp, 9.0 if self._is_irrigating else 0.0, dt_s, 120.0)

    def _breathe(self, sun: float, dt_s: float) -> None:
        target = 420.0 if self._is_open else 900.0 - 560.0 * min(1.0, sun * 2)
        self._co2 = _toward(self._co2, target, dt_s, 300.0 if self._is_open else 5400.0)

    def _mode(self, outside: float) -> str:
        if self._is_irrigating:
            return "irrigating"
        if self._is_open:
            return "venting"
        return "heating" if outside + 4 < self.HEAT_BELOW and self._temp < self.HEAT_BELOW + 1 else "idle"


# A tour as corner points (latitude, longitude); the lorry drives it round and round.
_ROUTE = (
    (52.0907, 5.1214),
    (52.0116, 4.7104),
    (51.9244, 4.4777),
    (52.0705, 4.3007),
    (52.1601, 4.4970),
    (52.3676, 4.9041),
    (52.2215, 5.1719),
)
_KM_PER_DEGREE = 111.2


@dataclass(slots=True)
class _Stop:
    """Seconds until the next change between driving and standing with the door open."""

    left_s: float
    is_open: bool = False


class ColdChain:
    """A compartment: compressor with hysteresis, doors opened at stops, a lorry moving along its tour."""

    SETPOINTS = {"frozen": -18.0, "chilled": 4.0}  # Cel, by cargo

    def __init__(self, rng: Dice, now_s: float) -> None:
        self._rng, self._watch = rng, _Watch(now_s)
        self.setpoint = rng.choice(list(self.SETPOINTS.values()))
        self._temp = self.setpoint + rng.uniform(-1.0, 1.0)
        self._ambient = rng.uniform(14.0, 24.0)
        self._is_cooling = rng.random() < 0.5  # noqa: PLR2004 - a coin
        self._stop = _Stop(rng.uniform(30.0, 900.0))
        self._battery = rng.uniform(26.0, 27.2)
        self._speed = 60.0
        self._leg, self._done = rng.randrange(len(_ROUTE)), rng.random()

    def values(self, now_s: float) -> Values:
        dt_s = self._watch.step_s(now_s)
        self._halt(dt_s)
        self._cool(dt_s)
        lat, lon = self._drive(dt_s)
        volts = (27.6 if self._speed > 1 else 25.4) - (0.5 if self._is_cooling else 0.0)
        self._battery = _toward(self._battery, volts, dt_s, 90.0)
        return {
            "temp": round(self._temp + self._rng.gauss(0.0, 0.05), 2),
            "setpoint": self.setpoint,
            "door_open": self._stop.is_open,
            "compressor_on": self._is_cooling,
            "battery": round(self._battery + self._rng.gauss(0.0, 0.02), 2),
            "speed": round(self._speed, 1),
            "lat": round(lat, 6),
            "lon": round(lon, 6),
        }

    def carry(self, cargo: str) -> None:
        """Take a cargo: the compartment has had its temperature for long."""
        change = self.SETPOINTS[cargo] - self.setpoint
        self.setpoint, self._temp = self.setpoint + change, self._temp + change

    def _halt(self, dt_s: float) -> None:
        self._stop.left_s -= dt_s
        if self._stop.left_s > 0:
            return
        is_open = not self._stop.is_open
        self._stop = _Stop(
            self._rng.uniform(60.0, 180.0) if is_open else self._rng.expovariate(1 / 900.0) + 120.0, is_open
        )

    def _cool(self, dt_s: float) -> None:
        if self._stop.is_open:
            self._temp = _toward(self._temp, self._ambient, dt_s, 1200.0)
        elif self._is_cooling:
            self._temp = _toward(self._temp, self.setpoint - 12.0, dt_s, 1000.0)
        else:
            self._temp = _toward(self._temp, self._ambient, dt_s, 7200.0)
        self._is_cooling = self._temp > self.setpoint + (-1.2 if self._is_cooling else 1.2)

    def _drive(self, dt_s: float) -> tuple[float, float]:
        cruise = 72.0 + 14.0 * math.sin(self._done * 9.0 + self._leg)
        self._speed = 0.0 if self._stop.is_open else _toward(self._speed, cruise, dt_s, 20.0)
        (lat_a, lon_a), (lat_b, lon_b) = _ROUTE[self._leg], _ROUTE[(self._leg + 1) % len(_ROUTE)]
        shrink = math.cos(math.radians(lat_a))  # a degree of longitude is shorter away from the equator
        length_km = _KM_PER_DEGREE * math.hypot(lat_b - lat_a, (lon_b - lon_a) * shrink)
        self._done += self._speed * dt_s / 3600 / length_km
        if self._done >= 1:
            self._leg, self._done = (self._leg + 1) % len(_ROUTE), 0.0
            lat_a, lon_a, (lat_b, lon_b) = lat_b, lon_b, _ROUTE[(self._leg + 1) % len(_ROUTE)]
        return lat_a + (lat_b - lat_a) * self._done, lon_a + (lon_b - lon_a) * self._done


class Pump:
    """A pump whose bearing wears: heat and vibration rise before it trips; after the repair it starts anew."""

    WARN_AT, TRIP_AT = 0.75, 1.0  # share of the bearing's life

    def __init__(self, rng: Dice, now_s: float) -> None:
        self._rng, self._watch = rng, _Watch(now_s)
        self._wear = rng.uniform(0.0, 0.9)
        self._life_s = rng.uniform(2400.0, 7200.0)  # short, so that a watcher sees one wear out
        self._down_s = 0.0
        self._rpm, self._demand = 1480.0, rng.uniform(0.75, 1.0)
        self._ambient = rng.uniform(15.0, 25.0)
        self._bearing = self._bearing_target()

    def values(self, now_s: float) -> Values:
        dt_s, noise = self._watch.step_s(now_s), self._rng.gauss
        self._age(dt_s)
        is_running = self._down_s <= 0
        self._demand = _clamp(self._demand + noise(0.0, 0.002) * math.sqrt(dt_s), 0.6, 1.0)
        self._rpm = _toward(self._rpm, 1480.0 * self._demand if is_running else 0.0, dt_s, 12.0)
        self._bearing = _toward(self._bearing, self._bearing_target() if is_running else self._ambient, dt_s, 240.0)
        turn = self._rpm / 1480.0
        vibration = turn * (1.4 + 1.2 * self._wear + 7.5 * self._wear**6)
        return {
            "rpm": round(max(0.0, self._rpm + noise(0.0, 2.0) * turn), 1),
            "flow": round(max(0.0, 120.0 * turn * (1 - 0.12 * self._wear**3) + noise(0.0, 0.4) * turn), 2),
            "pressure": round(max(0.0, 6.2 * turn * turn * (1 - 0.08 * self._wear**3) + noise(0.0, 0.02) * turn), 3),
            "vibration": round(max(0.0, vibration * (1 + noise(0.0, 0.03))), 3),
            "bearing_temp": round(self._bearing + noise(0.0, 0.08), 2),
            "state": self._state(),
        }

    def _age(self, dt_s: float) -> None:
        if self._down_s > 0:
            self._down_s -= dt_s
            if self._down_s <= 0:
                self._wear = 0.0  # a new bearing
            return
        self._wear += dt_s / self._life_s
        if self._wear >= self.TRIP_AT:
            self._wear, self._down_s = self.TRIP_AT, 240.0

    def _bearing_target(self) -> float:
        return self._ambient + 24.0 + 8.0 * self._wear + 46.0 * self._wear**5

    def _state(self) -> str:
        if self._down_s > 0:
            return "fault" if self._down_s > 120.0 else "maintenance"  # noqa: PLR2004 - the mechanic comes after two minutes
        return "warning" if self._wear > self.WARN_AT else "running"


_PLAIN_STEPS, _PLAIN_PERIOD_S = 512, 628.0


def _plain_step(number: int) -> bytes:
    wave = math.sin(math.tau * number / _PLAIN_STEPS)
    return b'{"temp":%.2f,"humidity":%.1f,"battery":%.3f,"ok":%s,"count":%%d}' % (
        21.0 + 4.0 * wave,
        55.0 - 12.0 * wave,
        3.7 + 0.2 * wave,
        b"true" if wave > -0.95 else b"false",  # noqa: PLR2004
    )


_PLAIN = tuple(_plain_step(number) for number in range(_PLAIN_STEPS))


class Plain:
    """Slow curves and a counter; rendered from a table, for load tests are not about what values cost."""

    __slots__ = ("_count", "_phase")

    def __init__(self, rng: Dice, now_s: float) -> None:  # noqa: ARG002 - one form for all models
        self._phase = rng.random() * _PLAIN_STEPS
        self._count = 0

    def render(self, now_s: float) -> bytes:
        """Give the values as JSON: a tenth of the cost of making them anew."""
        self._count += 1
        step = int(now_s * (_PLAIN_STEPS / _PLAIN_PERIOD_S) + self._phase) % _PLAIN_STEPS
        return _PLAIN[step] % self._count

    def values(self, now_s: float) -> Values:
        return dict(orjson.loads(self.render(now_s)))
