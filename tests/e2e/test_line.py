"""InfluxDB's clients against a whole installation: the official one as it is, Telegraf by its exact requests."""

from __future__ import annotations

import gzip
import http.client
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from influxdb_client import InfluxDBClient, Point, WriteOptions
from influxdb_client.client.exceptions import InfluxDBError
from influxdb_client.client.write_api import SYNCHRONOUS

from tests.e2e.platform import Device, Installation, basic
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e
NOW_S = 1_772_600_000
QUICK = {"flush_interval": 50, "retry_interval": 100, "jitter_interval": 0, "max_retry_delay": 500, "max_retries": 20}
LINES = b"cpu,cpu=cpu0,host=gw usage_idle=98.5,n=3i 1772600000000000000\ncpu,cpu=cpu1,host=gw usage_idle=97 1772600000000000000\n"


@pytest.fixture
def client(installation: Installation, device: Device) -> Iterator[InfluxDBClient]:
    with InfluxDBClient(installation.url, token=device.bearer, org="o", enable_gzip=True) as made:
        yield made


def rows(installation: Installation, device: Device, count: int) -> list[tuple[Any, ...]]:
    """Wait for that many points: measurement, tags and fields in the order of time."""
    found = wait_until(
        lambda: points if len(points := installation.points(device.id)) >= count else None, 10, what=f"{count} points"
    )
    return [(point["measurement"], point["tags"], point["fields"]) for point in found]


def test_official_client_finds_the_platform(client: InfluxDBClient) -> None:
    assert client.ping()
    assert client.ready().status == "ready"
    with pytest.warns(DeprecationWarning, match="ping"):
        assert client.health().status == "pass"


def test_readings_of_the_official_client_come_back_with_their_tags(
    installation: Installation, device: Device, client: InfluxDBClient
) -> None:
    write = client.write_api(write_options=SYNCHRONOUS)
    fields = {"t": 21.5, "n": 2**63 - 1, "on": True, "said": 'two\nlines, "so"\\'}
    points = [Point("we ather").tag("room", room).time(NOW_S + n, "s") for n, room in enumerate(("la b", "ö=,"))]
    for point in points:
        for name, value in fields.items():
            point.field(name, value)

    write.write("any", record=points, write_precision="s")

    assert rows(installation, device, 2) == [("we ather", {"room": room}, fields) for room in ("la b", "ö=,")]


def test_official_client_is_told_of_a_bad_line_and_does_not_repeat_it(
    installation: Installation, device: Device, client: InfluxDBClient
) -> None:
    write = client.write_api(write_options=SYNCHRONOUS)

    with pytest.raises(InfluxDBError, match="partial write: line 2: ") as error:
        write.write("any", record=["m a=1 1", "m a=", "m a=3 3"])

    assert error.value.response.status == 400
    assert rows(installation, device, 2) == [("m", {}, {"a": 1.0}), ("m", {}, {"a": 3.0})]
    assert [(each["code"], each["record"]) for each in installation.quarantined(device.id)] == [("bad_syntax", 1)]


def test_batches_outlive_a_service_that_is_killed(
    installation: Installation, device: Device, client: InfluxDBClient
) -> None:
    with client.write_api(write_options=WriteOptions(batch_size=20, **QUICK)) as write:
        for number in range(400):
            if number in (100, 250):
                os.kill(service(installation), signal.SIGKILL)
            write.write("any", record=Point("load").field("n", number).time(NOW_S + number, "s"), write_precision="s")

    assert [row[2]["n"] for row in rows(installation, device, 400)] == list(range(400))


def service(installation: Installation) -> int:
    """Give the pid of the service, which begins with the first request."""
    wait_until(lambda: installation.call("GET", "/ping").status == 204, 10, what="the service")
    listed = installation.status()["processes"]
    return int(next(each["pid"] for each in listed if each["name"] == "ingest-line"))


def send(installation: Installation, path: str, body: bytes, **headers: str) -> tuple[int, Any]:
    """Send as Go does a body whose length it does not know: in chunks."""
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection(installation.url.removeprefix("http://"), timeout=20)
    told |= {"User-Agent": "Telegraf/1.36.0 Go/1.25.0", "Accept-Encoding": "gzip"}
    connection.request("POST", path, iter([body[:70], body[70:]]), told, encode_chunked=True)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


CPUS = [
    ("cpu", {"cpu": "cpu0", "host": "gw"}, {"usage_idle": 98.5, "n": 3}),
    ("cpu", {"cpu": "cpu1", "host": "gw"}, {"usage_idle": 97.0}),
]


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_telegraf_v2_is_taken_as_it_sends(installation: Installation, device: Device, encoding: str) -> None:
    headers = {"Authorization": f"Token {device.bearer}", "Content_Type": "text/plain; charset=utf-8"}
    body, more = (gzip.compress(LINES), {"Content_Encoding": "gzip"}) if encoding == "gzip" else (LINES, {})

    status, content = send(installation, "/api/v2/write?bucket=telegraf&org=o", body, **headers, **more)

    assert (status, content) == (204, b"")
    assert sorted(rows(installation, device, 2), key=str) == sorted(CPUS, key=str)


def test_telegraf_v1_is_taken_as_it_sends(installation: Installation, device: Device) -> None:
    login = {"Authorization": basic(device)}
    form = login | {"Content_Type": "application/x-www-form-urlencoded"}

    created = send(installation, "/query", b"q=CREATE+DATABASE+%22telegraf%22", **form)
    status, content = send(
        installation, "/write?db=telegraf", gzip.compress(LINES), **login, Content_Encoding="gzip",
        Content_Type="text/plain; charset=utf-8",
    )  # fmt: skip

    assert created == (200, b'{"results":[{"statement_id":0}]}')
    assert (status, content) == (204, b"")
    assert sorted(rows(installation, device, 2), key=str) == sorted(CPUS, key=str)


def test_arduino_of_v1_names_itself_in_the_query(installation: Installation, device: Device) -> None:
    who = f"u={device.id}&p={device.secret}"

    assert installation.call("GET", f"/ping?verbose=true&{who}", Authorization="").status == 200
    answer = installation.post(None, b"esp32,room=lab t=21.5", f"/write?db=b&{who}&precision=s")

    assert answer.status == 204
    assert rows(installation, device, 1) == [("esp32", {"room": "lab"}, {"t": 21.5})]


def test_lines_over_mqtt_are_readings(installation: Installation, device: Device) -> None:
    installation.wait_for_broker(device)

    assert installation.publish(device, f"devices/{device.id}/telemetry/line", LINES).returncode == 0

    assert sorted(rows(installation, device, 2), key=str) == sorted(CPUS, key=str)


def test_gateway_speaks_for_the_hosts_its_lines_name(installation: Installation) -> None:
    gateway = installation.add_device("line-gw", gateway=True)
    known = installation.add_device("line-known")
    assert installation.call("PUT", f"/v1/devices/{known.id}/parent", {"gateway": gateway.id}).status < 300
    body = b"cpu,host=rack\\ 1,room=a t=1\ncpu,host=line-known t=2\ncpu,host=bad t\ncpu,room=b t=3"

    answer = installation.post(None, body, "/api/v2/write", Authorization=f"Token {gateway.bearer}")

    assert (answer.status, answer.body["line"]) == (400, 3)
    for device_id, tags, value in (
        ("rack-1", {"room": "a"}, 1.0),
        (known.id, {}, 2.0),
        (gateway.id, {"room": "b"}, 3.0),
    ):
        sender = Device(device_id, "", "")
        assert rows(installation, sender, 1) == [("cpu", tags, {"t": value})]
    assert installation.get("/v1/devices/rack-1")["names"] == ["line:rack 1"]
