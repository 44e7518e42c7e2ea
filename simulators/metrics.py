"""Live figures of a run for Prometheus, over HTTP on 127.0.0.1: text format 0.0.4, one answer a connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from simulators.stats import Durations
from simulators.tally import Tally

_QUANTILES = (0.5, 0.95, 0.99)
_READ_S = 5.0


@asynccontextmanager
async def serve_metrics(port: int | None, tally: Callable[[], Tally]) -> AsyncIterator[None]:
    """Answer `GET /metrics` while the block runs; None = no port, no server.

    Raises:
        OSError: the port is taken.
    """
    if port is None:
        yield
        return

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _READ_S)
            writer.write(respond(request, tally))
            await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()


def respond(request: bytes, tally: Callable[[], Tally]) -> bytes:
    """Answer one request."""
    is_found = request.startswith((b"GET /metrics ", b"GET / "))
    body = render(tally()).encode() if is_found else b"try /metrics\n"
    status = b"200 OK" if is_found else b"404 Not Found"
    head = b"HTTP/1.1 %s\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    return head % (status, len(body)) + body


def render(tally: Tally) -> str:
    """Write the text that Prometheus reads."""
    lines = [
        *_metric("headwater_sim_sent_total", "counter", "Readings transmitted at least once", tally.sent),
        *_metric("headwater_sim_acked_total", "counter", "Readings acknowledged", tally.acked),
        *_metric("headwater_sim_quarantined_total", "counter", "Readings answered as quarantined", tally.quarantined),
        *_metric("headwater_sim_waiting", "gauge", "Readings not acknowledged yet", tally.waiting),
        *_metric("headwater_sim_devices", "gauge", "Devices that have connected", tally.devices),
        "# HELP headwater_sim_events_total Errors and repeated work by name, as in the report",
        "# TYPE headwater_sim_events_total counter",
        *(f'headwater_sim_events_total{{event="{name}"}} {count}' for name, count in sorted(tally.errors.items())),
        "# HELP headwater_sim_control_total What devices heard and said of commands and twins, as in the report",
        "# TYPE headwater_sim_control_total counter",
        *(f'headwater_sim_control_total{{what="{name}"}} {n}' for name, n in sorted(tally.control.counts.items())),
        *_summary("headwater_sim_ack_seconds", "Publish to acknowledgement", tally.ack_ms),
        *_summary("headwater_sim_visible_seconds", "Publish until a query shows it, sampled", tally.visible_ms),
    ]
    return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, text: str, value: float) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}", f"{name} {value}"]


def _summary(name: str, text: str, durations: Durations) -> list[str]:
    quantiles = [
        f'{name}{{quantile="{share}"}} {ms / 1000:.6f}'
        for share in _QUANTILES
        if (ms := durations.percentile(share)) is not None
    ]
    sums = [f"{name}_sum {durations.total_ms / 1000:.6f}", f"{name}_count {durations.count}"]
    return [f"# HELP {name} {text}", f"# TYPE {name} summary", *quantiles, *sums]
