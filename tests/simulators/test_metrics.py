"""Live figures: what Prometheus' own parser reads, over HTTP, only where a port was asked for."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families

from simulators.metrics import render, serve_metrics
from simulators.stats import Durations
from simulators.tally import Tally
from tests.e2e.platform import free_ports


def tally() -> Tally:
    durations = Durations()
    for ms in (1.0, 2.0, 200.0):
        durations.add(ms)
    return Tally(sent=7, acked=5, waiting=2, devices=3, errors=Counter(reconnects=4), ack_ms=durations)


def test_figures_are_what_prometheus_reads() -> None:
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(render(tally()))
        for sample in family.samples
    }

    assert samples["headwater_sim_sent_total",] == 7
    assert samples["headwater_sim_acked_total",] == 5
    assert samples["headwater_sim_waiting",] == 2
    assert samples["headwater_sim_devices",] == 3
    assert samples["headwater_sim_events_total", "reconnects"] == 4
    assert samples["headwater_sim_ack_seconds_count",] == 3
    assert samples["headwater_sim_ack_seconds_sum",] == pytest.approx(0.203)
    assert 0.19 < samples["headwater_sim_ack_seconds", "0.99"] <= 0.2


@pytest.mark.parametrize(("path", "status"), [("/metrics", b"200 OK"), ("/secrets", b"404 Not Found")])
def test_figures_are_served_while_the_run_goes_on(path: str, status: bytes) -> None:
    port = free_ports(1)[0]

    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return answer

    async def scene() -> bytes:
        async with serve_metrics(port, tally):
            answer = await ask()
        with pytest.raises(OSError, match="Connect"):
            await ask()
        return answer

    answer = asyncio.run(scene())

    assert answer.split(b"\r\n")[0] == b"HTTP/1.1 " + status
    assert (b"headwater_sim_sent_total 7" in answer) == (path == "/metrics")


def test_no_port_is_no_server() -> None:
    async def scene() -> None:
        async with serve_metrics(None, tally):
            pass

    asyncio.run(scene())
