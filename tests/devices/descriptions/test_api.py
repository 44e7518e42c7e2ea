"""What devices tell of their fields, through the routes of the registry, on both databases."""

from __future__ import annotations

from typing import Any

import pytest

from devices.database.tables_descriptions import DESCRIPTIONS
from devices.descriptions import store
from tests.devices.running import Service
from wire.descriptions import MAX_OF_DEVICE


def tell(service: Service, device: str, *fields: dict[str, Any], name: str = "") -> None:
    told = [{"measurement": "m", "field": "t"} | field for field in fields]
    body = {"told": [{"device": device, "name": name, "fields": told}]}
    assert service.internal("POST", "/internal/descriptions", body).status_code == 204


def described(service: Service, device: str) -> list[dict[str, Any]]:
    found = service.admin("GET", f"/v1/devices/{device}").json["described"]
    return [{name: value for name, value in each.items() if value not in ("", None)} for each in found]


def known(service: Service, *devices: str, tenant: str = "default") -> Any:
    asked = {"tenant": tenant, "devices": list(devices)}
    return service.internal("POST", "/internal/descriptions:lookup", asked).json["items"]


def rows(service: Service) -> list[Any]:
    with service.app.extensions["headwater.database"].read() as connection:
        return [dict(row) for row in connection.execute(DESCRIPTIONS.select()).mappings()]


@pytest.fixture
def home(service: Service) -> Service:
    for gateway in ("gw", "gw2"):
        service.register(gateway, gateway=True)
    service.register("lamp")
    return service


def admit(service: Service, gateway: str, name: str) -> str:
    asked = {"gateway": gateway, "children": [], "names": [name]}
    return str(service.internal("POST", "/internal/children:admit", asked).json["named"][name])


def test_what_a_device_tells_of_its_fields_is_shown_with_it(home) -> None:
    tell(home, "lamp", {"unit": "°C", "label": "Air", "kind": "temperature", "min": -40, "max": 85.5}, {"field": "a"})
    tell(home, "lamp", {"unit": "°F"})

    t = {"measurement": "m", "field": "t", "unit": "°F", "label": "Air", "kind": "temperature", "min": -40, "max": 85.5}
    assert described(home, "lamp") == [{"measurement": "m", "field": "a"}, t]


def test_what_is_told_again_is_not_written_again(home) -> None:
    tell(home, "lamp", {"unit": "V"})
    before = rows(home)

    tell(home, "lamp", {"unit": "V"})

    assert rows(home) == before


def test_child_is_described_by_its_gateway_also_before_it_is_registered(home) -> None:
    tell(home, "gw", {"unit": "lx"}, name="zigbee:Hall/Light")

    child = admit(home, "gw", "zigbee:Hall/Light")

    assert described(home, child)[0]["unit"] == "lx"
    assert described(home, "gw") == []


def test_gateway_describes_no_child_of_another(home) -> None:
    child = admit(home, "gw", "zigbee:a")

    tell(home, "gw2", {"unit": "lies"}, name="zigbee:a")
    tell(home, "gw2", {"unit": "lies"}, name=f"zigbee:{child}")
    tell(home, "lamp", {"unit": "lies"}, name="zigbee:a")

    assert described(home, child) == []


def test_what_a_child_tells_itself_goes_before_its_gateway(home) -> None:
    child = admit(home, "gw", "zigbee:a")
    tell(home, child, {"unit": "mine"})
    tell(home, "gw", {"unit": "its", "label": "L"}, name="zigbee:a")

    assert described(home, child) == [{"measurement": "m", "field": "t", "unit": "mine", "label": "L"}]


def test_type_is_told_beside_what_devices_say(home) -> None:
    home.admin("POST", "/v1/device-types", {"name": "lamps", "fields": {"t": {"unit": "K"}, "n": {}}})
    home.admin("PATCH", "/v1/devices/lamp", {"type": "lamps"})
    tell(home, "lamp", {"unit": "°C"})

    said = {"measurement": "", "field": "t", "unit": "K", "description": ""}
    assert known(home, "lamp", "gw", "nobody") == {"lamp": [{"measurement": "m", "field": "t", "unit": "°C"}, said]}
    assert known(home, "lamp", tenant="other") == {}


def test_no_more_is_kept_than_a_device_and_a_sender_may_tell(home, monkeypatch) -> None:
    monkeypatch.setattr(store, "MAX_OF_SENDER", MAX_OF_DEVICE + 10)
    tell(home, "lamp", *({"field": f"f{at}"} for at in range(MAX_OF_DEVICE + 5)))

    tell(home, "lamp", *({"field": f"g{at}"} for at in range(20)), name="x:1")
    tell(home, "lamp", {"field": "f7", "unit": "V"})

    assert len(described(home, "lamp")) == MAX_OF_DEVICE
    assert sorted(row["number"] for row in rows(home)) == [10, MAX_OF_DEVICE]
    assert next(each for each in described(home, "lamp") if each["field"] == "f7")["unit"] == "V"


def test_descriptions_go_with_their_device_and_unknown_ones_are_passed_over(home) -> None:
    tell(home, "lamp", {"unit": "V"})
    tell(home, "nobody", {"unit": "V"})

    home.admin("DELETE", "/v1/devices/lamp")
    home.register("lamp")

    assert (rows(home), described(home, "lamp")) == ([], [])
