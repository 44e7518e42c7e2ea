"""The page of a device's access and its forms."""

from __future__ import annotations

import re

import pytest

from dashboard_api.app import Ports, assemble
from dashboard_api.config import DashboardConfig
from devices.config import DevicesConfig
from tests.dashboard_api.fakes import MemoryReader, Platform, demo, device
from tests.dashboard_api.registry import RegistryPeer
from tests.devices.running import ADMIN, SERVICE, Service

VIEWER, OPERATOR = ({"Authorization": f"Bearer {role}-token", "Accept": "text/html"} for role in ("viewer", "operator"))
HOSTILE = "\"><img src=x onerror=alert(1)>'{{7*7}}</script>"
CREDENTIAL = {"id": "c1", "label": HOSTILE, "created": "2026-01-02T03:04:05Z", "not_before": None, "not_after": None,
              "last_used": None}  # fmt: skip
CHILD = {
    "id": "a-1",
    "type": None,
    "state": "held",
    "tags": {"line": "1"},
    "online": False,
    "last_seen": None,
    "names": ["tb:child <b>1</b>"],
}
URL = "/devices/gw-1/access"


@pytest.fixture
def platform() -> Platform:
    made = demo()[0]
    made.devices["gw-1"] = device("gw-1", gateway=True, credentials=[CREDENTIAL], names=[f"tb:{HOSTILE}"])
    made.devices["a-1"] = device("a-1", credentials=[])
    made.children = [CHILD]
    made.topics = [{"device": "gw-1", "filter": HOSTILE, "protocol": "tasmota", "since": "2026-01-02T03:04:05Z"}]
    return made


def test_page_shows_state_credentials_and_children(client) -> None:
    page = client.get(URL, headers=OPERATOR)

    assert page.status_code == 200
    for text in (
        "active",
        "c1",
        "never used",
        "a-1",
        "held",
        "are held",
        "Retire",
        "Release",
        "tb:child &lt;b&gt;1",
        "tb:&#34;&gt;",
    ):
        assert text in page.text, text
    assert HOSTILE not in page.text


def test_children_beyond_a_page_can_be_reached(tmp_path) -> None:
    config = DevicesConfig(data=tmp_path, broker="", operator_token=ADMIN, service_token=SERVICE)
    registry = Service(config)
    peer = RegistryPeer(registry)
    pages = assemble(DashboardConfig(service_token=SERVICE), Ports(MemoryReader(), peer, peer)).test_client()
    headers = {"Authorization": f"Bearer {ADMIN}", "Accept": "text/html"}
    try:
        registry.register("gw", gateway=True)
        names = [f"child-{number:03}" for number in range(250)]
        registry.internal("POST", "/internal/children:admit", {"gateway": "gw", "children": names})
        shown, path = list[str](), "/devices/gw/access"
        for _ in range(3):
            page = pages.get(path, headers=headers).text
            shown += re.findall(r'<a href="/devices/(child-\d+)">', page)
            path = "".join(re.findall(r'href="([^"]+)" rel="next"', page)).partition("#")[0]
    finally:
        registry.stop()

    assert (shown, path) == (names, "")


def test_topics_are_claimed_and_released(client, platform) -> None:
    client.post(
        f"{URL}/topics", data={"verb": "claim", "filter": "tele/a b/#", "protocol": "tasmota"}, headers=OPERATOR
    )
    client.post(f"{URL}/topics", data={"verb": "release", "filter": "tele/a b/#"}, headers=OPERATOR)

    called = [call[:2] for call in platform.calls if call[1].endswith("/topics") and call[0] != "GET"]
    assert called == [("POST", "/v1/devices/gw-1/topics"), ("DELETE", "/v1/devices/gw-1/topics")]


def test_child_shows_its_gateway(client) -> None:
    assert "gw-7" in client.get("/devices/a-1/access", headers=OPERATOR).text


def test_viewer_sees_no_forms_and_may_use_none(client) -> None:
    assert "<button" not in client.get(URL, headers=VIEWER).text.partition('id="state"')[2].partition("</main>")[0]
    for form in ("state", "credential", "gateway", "topics"):
        assert client.post(f"{URL}/{form}", data={}, headers=VIEWER).status_code == 403


@pytest.mark.parametrize("confirm", ["", "gw-2"])
def test_state_changes_only_with_the_id_typed(client, platform, confirm) -> None:
    answer = client.post(f"{URL}/state", data={"verb": "retire", "confirm": confirm}, headers=OPERATOR)

    assert answer.status_code == 422
    assert "type the device" in answer.text
    assert not [call for call in platform.calls if call[1].endswith(":retire")]


def test_confirmed_change_of_state_is_asked_of_the_registry(client, platform) -> None:
    answer = client.post(f"{URL}/state", data={"verb": "retire", "confirm": "gw-1"}, headers=OPERATOR)

    assert (answer.status_code, answer.headers["Location"]) == (303, URL)
    assert ("POST", "/v1/devices/gw-1:retire", "operator-token") in platform.calls


def test_new_secret_is_on_the_answer_only(client) -> None:
    page = client.post(f"{URL}/credential", data={"verb": "rotate", "overlap_s": "60"}, headers=OPERATOR)

    assert "secret-shown-once" in page.text
    assert "secret-shown-once" not in client.get(URL, headers=OPERATOR).text


def test_rules_are_saved_and_a_child_is_moved(client, platform) -> None:
    client.post(f"{URL}/gateway", data={"verb": "rules", "children": "auto", "prefixes": "a- b-"}, headers=OPERATOR)
    client.post("/devices/a-1/access/gateway", data={"verb": "move", "gateway": "gw-2"}, headers=OPERATOR)

    assert ("PUT", "/v1/devices/gw-1/gateway", "operator-token") in platform.calls
    assert ("PUT", "/v1/devices/a-1/parent", "operator-token") in platform.calls


def test_saved_rules_say_which_children_they_leave_out(client, platform) -> None:
    platform.left_out = [HOSTILE, *(f"b-{number}" for number in range(11))]

    page = client.post(f"{URL}/gateway", data={"verb": "rules", "prefixes": "a-"}, headers=OPERATOR)

    assert page.status_code == 200
    assert "does not speak for 12 of its children any more" in page.text
    assert "b-8, ..." in page.text
    assert HOSTILE not in page.text


def test_device_page_names_its_gateway_and_a_gateways_its_children(client, platform) -> None:
    platform.devices["a-1"]["parent"] = "gw-7"
    platform.children = [CHILD | {"id": f"a-{number}", "outside": number == 3} for number in range(11)]

    child = client.get("/devices/a-1", headers=OPERATOR).text
    gateway = client.get("/devices/gw-1", headers=OPERATOR).text

    assert 'through gateway <a class="break" href="/devices/gw-7">gw-7</a>' in child
    assert "Children" not in child
    assert 'href="/devices/a-9"' in gateway
    assert 'href="/devices/a-10"' not in gateway
    assert gateway.count("outside its prefixes") == 1
    assert 'href="/devices/gw-1/access#children"' in gateway
