"""More than can be taken: posts at ten times the peak, and one noisy device beside many calm ones.

    .venv/bin/python bench/overload.py [open|noisy ...] [--seconds 8] [--times 10]

`open`: posts leave at their time whether or not others were answered (an open loop), each on a connection that is free,
else on a new one; latency counts from the time a post was due. `noisy`: what one device that sends ten times as much
as all others together costs these, over MQTT and HTTP, with a rate limit on its type. The generator shares the cores.
"""

from __future__ import annotations

import argparse
import selectors
import sys
import time
from collections import deque
from multiprocessing import Pipe, get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import load  # noqa: E402
import pipeline  # noqa: E402
import results  # noqa: E402

from tests.e2e.platform import Installation  # noqa: E402

CONNECTIONS = 3_000
CALM_RATE, NOISE = 200, 10
LIMIT = "100:1"


class _Caller(load.Poster):
    """A connection of the open loop: remembers when its post was due."""

    due_s = 0.0

    def read(self, result: load.Result) -> bool:
        before = len(result.ack_ms)
        is_whole = super().read(result)
        if is_whole:
            del result.ack_ms[before:]
        return is_whole


def flood(address: tuple[str, int], logins: list[load.Login], rate: float, seconds: float, boot: str) -> load.Result:
    """Post at `rate` in all, whatever is answered; `ack_ms` holds the times of what was accepted."""
    result, selector = load.Result(), selectors.DefaultSelector()
    free: deque[_Caller] = deque()
    callers = 0
    began_s = time.monotonic()
    due = 0
    while (now_s := time.monotonic()) < began_s + seconds:
        for number in range(due, int(rate * (now_s - began_s))):
            due = number + 1
            if not free and callers < CONNECTIONS:
                free.append(_Caller(address, logins[callers % len(logins)], f"{boot}-{callers}", 1))
                selector.register(free[-1].socket, selectors.EVENT_READ, free[-1])
                callers += 1
            if not free:
                result.answers["no connection free"] += 1
                continue
            caller = free.popleft()
            caller.due_s = began_s + number / rate
            caller.post(result)
        _answers(selector, result, free, load.TICK_S)
    result.seconds = time.monotonic() - began_s
    deadline_s = time.monotonic() + load.DRAIN_S
    while len(free) < callers and time.monotonic() < deadline_s:
        _answers(selector, result, free, 0.05)
    for key in list(selector.get_map().values()):
        key.data.socket.close()
    return result


def _answers(selector: selectors.BaseSelector, result: load.Result, free: deque[_Caller], nap_s: float) -> None:
    for key, _ in selector.select(nap_s):
        caller: _Caller = key.data
        accepted = result.answers["202"]
        if caller.read(result):
            free.append(caller)
            if result.answers["202"] > accepted:
                result.ack_ms.append(1e3 * (time.monotonic() - caller.due_s))


def measure_open(seconds: float, times: float) -> None:
    print(f"\nHTTP single posts at {times:g} x the peak, open loop (aim: goodput >= 90 %, p99 of accepted < 1 s)")
    before = results.conditions()
    with pipeline.installation(64) as (running, logins):
        address = ("127.0.0.1", running.port)
        load.run_apart(load.post, address, logins, 2, "warm", 1)
        closed = load.run_apart(load.post, address, logins, seconds, "peak", 1)
        peak = closed.acked / closed.seconds
        print(f"  peak, 64 devices closed loop: {peak:,.0f}/s, {pipeline.load_average()}")
        for factor in (0.8, times):
            watch = pipeline.Watch(running)
            result = load.run_apart(flood, address, logins, peak * factor, seconds, f"x{factor:g}")
            goodput = result.answers["202"] / result.seconds
            print(
                f"  offered {peak * factor:,.0f}/s, sent {result.sent / result.seconds:,.0f}/s: accepted"
                f" {goodput:,.0f}/s = {goodput / peak:.0%} of the peak; accepted p50 {result.percentile(0.5):.0f},"
                f" p99 {result.percentile(0.99):.0f} ms; {dict(result.answers)}, {pipeline.load_average()}"
            )
            result.sent = result.answers["202"]
            _, stored = watch.end(result)
            print(f"    accepted {result.sent:,}, stored {stored:,}")
    lines = [
        results.Line(
            f"overload: accepted of posts at {times:g} x the peak", round(100 * goodput / peak), "% of it", aim=90
        ),
        results.Line(
            "overload: p99 of what was accepted", round(result.percentile(0.99)), "ms", aim=1_000, is_most=True
        ),
    ]
    figures = {"peak": round(peak), "goodput": round(goodput), "answers": dict(result.answers)}
    results.save("overload", before, figures, lines)


def measure_noisy(seconds: float, _times: float) -> None:
    print(f"\nOne device that sends {NOISE} x what {NOISE} others send together, its limit {LIMIT} (aim: costs < 5 %)")
    conditions, lines, figures = results.conditions(), [], {}
    with pipeline.installation(NOISE) as (running, logins):
        running.call("PUT", "/v1/device-types/chatty", {"rate_limit": LIMIT})
        made = running.add_device("noisy", type="chatty")
        noisy = [load.Login(made.id, made.secret)]
        pipeline.wait_for_broker(running, noisy[0])
        mqtt, http = ("127.0.0.1", running.mqtt), ("127.0.0.1", running.port)
        for name, calm, loud in (
            ("MQTT", (load.publish, mqtt, logins, CALM_RATE), (load.publish, mqtt, noisy, CALM_RATE * NOISE)),
            ("HTTP", (flood, http, logins, CALM_RATE), (flood, http, noisy, CALM_RATE * NOISE)),
        ):
            there = stored_of(running, logins)
            alone = load.run_apart(*calm, seconds, "alone")
            before = settled(running, logins, there + alone.sent)
            with beside(*loud, seconds + 1, "loud") as noise:
                beside_it = load.run_apart(*calm, seconds, "beside")
            for title, result in (("alone", alone), ("beside it", beside_it)):
                rate = result.acked / result.seconds
                print(
                    f"  {name} {title}: {rate:,.0f}/s answered, p50 {result.percentile(0.5):.1f},"
                    f" p99 {result.percentile(0.99):.1f} ms, {dict(result.answers)}, {pipeline.load_average()}"
                )
            print(f"    noisy: {noise[0].sent:,} sent, {dict(noise[0].answers)}")
            lost = beside_it.sent - (settled(running, logins, before + beside_it.sent) - before)
            print(f"    of the others' {beside_it.sent:,} lost {lost:,}")
            goodputs = [result.acked / result.seconds for result in (alone, beside_it)]
            cost = max(0.0, round(100 - 100 * goodputs[1] / goodputs[0], 1))
            lines.append(
                results.Line(f"a noisy device costs the others, {name}", cost, "% of goodput", aim=5, is_most=True)
            )
            latencies = [[round(each.percentile(share), 1) for share in (0.5, 0.99)] for each in (alone, beside_it)]
            figures[name] = {"goodput": goodputs, "ms_p50_p99": latencies, "lost": lost}
    results.save("noisy", conditions, figures, lines)


def stored_of(running: Installation, logins: list[load.Login]) -> int:
    return sum(len(running.points(each.device)) for each in logins)


def settled(running: Installation, logins: list[load.Login], wanted: int) -> int:
    for _ in range(100):
        if (found := stored_of(running, logins)) >= wanted:
            return found
        time.sleep(0.1)
    return found


class beside:  # noqa: N801 - reads as a block
    """Run a generator while the block runs; its result is the only element of what it gives."""

    def __init__(self, generate: Any, *arguments: Any) -> None:
        ours, theirs = Pipe(duplex=False)
        self._ours, self._result = ours, []
        self._process = get_context("fork").Process(target=lambda: theirs.send(generate(*arguments)))

    def __enter__(self) -> list[load.Result]:
        self._process.start()
        time.sleep(0.5)
        return self._result

    def __exit__(self, *_: object) -> None:
        self._result.append(self._ours.recv())
        self._process.join()


MEASURES = {"open": measure_open, "noisy": measure_noisy}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measures", nargs="*", choices=[*MEASURES, []], help="default: both")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--times", type=float, default=10)
    given = parser.parse_args()
    for name in given.measures or MEASURES:
        MEASURES[name](given.seconds, given.times)


if __name__ == "__main__":
    main()
