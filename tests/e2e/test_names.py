"""A gateway that names its children by what its protocol calls them, over a real broker."""

from __future__ import annotations

import json

import pytest

from tests.e2e.platform import Installation
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e

KNOWN, OTHER = "urn:dev:ow:10e2073a01080063", "urn:dev:mac:0024befffe804ff1"


def test_refused_child_costs_its_records_only_and_is_stored_by_a_replay(installation: Installation) -> None:
    gateway = installation.add_device("names-gw", gateway=True)
    installation.add_device("names-pump", type="sensor")
    installation.run("gateway", "move", "names-pump", "--to", "names-gw", check=True)
    installation.run("gateway", "name", "names-pump", f"senml:{KNOWN}", check=True)
    installation.run("gateway", "set", "names-gw", "--children", "refuse", check=True)
    installation.wait_for_broker(gateway)
    pack = [
        {"bt": 1_772_600_000, "bn": f"{KNOWN}:", "n": "temp", "v": 21.5},
        {"n": "label", "vs": "Süd <b>"},
        {"bn": f"{OTHER}/", "n": "temp", "v": 3},
        {"bn": "", "n": "uptime", "v": 7},
    ]

    topic = "devices/names-gw/telemetry/senml"
    assert installation.publish(gateway, topic, json.dumps(pack).encode()).returncode == 0

    wait_until(lambda: installation.points("names-pump") and installation.points("names-gw"), 20)
    (point,) = installation.points("names-pump")
    assert point["fields"] == {"temp": 21.5, "label": "Süd <b>"}
    assert [each["fields"] for each in installation.points("names-gw")] == [{"uptime": 7.0}]
    (entry,) = installation.quarantined("names-gw")
    assert (entry["code"], entry["record"], entry["sender"]) == ("child_refused", 2, "names-gw")

    installation.run("gateway", "set", "names-gw", "--children", "auto", check=True)

    def is_replayed() -> bool:  # the refusal is remembered for 2 s
        answer = installation.call("POST", "/v1/quarantine:replay", {"ids": [entry["id"]]})
        return bool(answer.body["replayed"] or answer.body["duplicates"])

    wait_until(is_replayed, 10)
    made = "urn-dev-mac-0024befffe804ff1"
    wait_until(lambda: installation.points(made), 10)
    assert [each["fields"] for each in installation.points(made)] == [{"temp": 3.0}]
    shown = {item["id"]: item["names"] for item in installation.get("/v1/devices/names-gw/children")["items"]}
    assert shown == {"names-pump": [f"senml:{KNOWN}"], made: [f"senml:{OTHER}"]}
    page = installation.call("GET", "/devices/names-pump/access", Accept="text/html")
    assert f"senml:{KNOWN}" in str(page.body)
