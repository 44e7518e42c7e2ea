from __future__ import annotations

import re

import pytest

from tests.dashboard_api.fakes import demo, device, quarantined
from wire.clock import format_ns, now_ns
from wire.points import Point

VIEWER = {"Authorization": "Bearer viewer-token", "Accept": "text/html"}
OPERATOR = {"Authorization": "Bearer operator-token", "Accept": "text/html"}
HOSTILE = "\"><img src=x onerror=alert(1)>'{{7*7}}</script>"


@pytest.fixture
def platform():
    return demo()[0]


@pytest.fixture
def reader():
    return demo()[1]


def get(client, path, headers=VIEWER):
    return client.get(path, headers=headers)


def send(client, path, form):
    return client.post(path, data=form, headers=OPERATOR)


def texts(page):
    return re.sub(r"[ \n]+", " ", re.sub(r"<[^>]+>", " ", page.text))


def test_overview_shows_figures_readings_and_ledger(client):
    page = get(client, "/")

    shown = texts(page)
    assert page.status_code == 200
    for text in ("18 / 20", "40\u202fms", "balanced", "184,213", "cold-chain-09", "°C"):
        assert text in shown, text


def test_overview_says_when_the_ledger_differs(client, platform):
    platform.ledger["stored"] -= 5

    assert "differs" in texts(get(client, "/"))


def test_overview_without_ingest_shows_the_rest(client, platform):
    platform.away.add("ingest")

    page = get(client, "/")

    assert page.status_code == 200
    assert "The ingest service does not answer" in page.text
    assert "18 / 20" in texts(page)


def test_empty_fleet_tells_what_to_type(client, platform):
    platform.devices.clear()

    for path in ("/", "/devices"):
        shown = get(client, path).text
        assert "headwater device add" in shown
        assert "mosquitto_pub" in shown
        assert "curl http://localhost/v1/telemetry" in shown


def test_device_table_pages_and_keeps_the_filter(client, platform):
    platform.devices = {f"d{at:03}": device(f"d{at:03}", tags={"site": "a&b"}) for at in range(60)}

    page = get(client, "/devices?tag=site:a%26b")

    assert page.text.count("<tr data-device=") == 50
    following = re.search(r'href="(/devices\?[^"]*cursor=[^"]*)"', page.text)[1].replace("&amp;", "&")
    assert "q=tag.site%3D%22a%26b%22" in following
    assert ">60+<" in page.text
    assert get(client, following).text.count("<tr data-device=") == 10


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("q=pump", 5),
        ("type=greenhouse", 8),
        ("show=offline", 2),
        ("show=disabled", 1),
        ("q=none", 0),
        ("q=type%3Dgreenhouse+and+not+online", 1),
        ("q=pump&show=online", 5),
    ],
)
def test_device_table_filters(client, query, count):
    assert get(client, f"/devices?{query}").text.count("<tr data-device=") == count


def test_columns_are_those_asked_for_and_stay_from_page_to_page(client, platform):
    platform.devices = {f"d{at:03}": device(f"d{at:03}", tags={"site": "a"}) for at in range(60)}
    for each in platform.devices.values():
        each["attributes"], each["fw"], each["presence"] = {"floor": 3}, "1.2", "stale"

    usual = get(client, "/devices").text
    page = get(client, "/devices?columns=fw&columns=presence&columns=attr.floor+tag.site,tag.none").text

    assert [label in usual for label in (">Last seen</th>", ">Firmware</th>")] == [True, False]
    heads = re.findall(r"<th>([^<]+)</th>", page)
    assert heads == ["Device", "Firmware", "Presence", "floor", "site", "none"]
    first = re.sub(r"<[^>]+>", " ", page[page.index('<tr data-device="d000"') :].partition("</tr>")[0]).split()
    assert first == ["d000", "1.2", "stale", "3", "a", "\N{EN DASH}"]
    assert "columns=fw%2Cpresence%2Cattr.floor%2Ctag.site%2Ctag.none" in page
    assert 'value="attr.floor tag.site tag.none"' in page


def test_column_that_is_none_is_told_beside_the_list(client):
    page = get(client, "/devices?columns=floor").text

    assert "no column &#39;floor&#39;" in page
    assert page.count("<tr data-device=") == 20


def test_query_that_cannot_be_read_is_marked_beside_the_form(client):
    page = get(client, "/devices?q=type%3Dpump+and+fwx%3C2")

    assert page.status_code == 200
    assert "no field &#39;fwx&#39; at character 15" in page.text
    assert "type=pump and <mark>fwx</mark>&lt;2" in page.text
    assert 'value="type=pump and fwx&lt;2"' in page.text


def test_only_who_may_act_sees_what_acts(client, platform):
    viewer = get(client, "/devices").text
    operator = get(client, "/devices", OPERATOR).text

    assert ("data-selection" in viewer, "data-bulk-go" in viewer) == (False, False)
    assert ("data-selection" in operator, "<option>north</option>" in operator) == (True, True)
    assert "<option>pumps</option>" not in operator


def test_groups_are_listed_made_and_deleted(client, platform):
    shown = texts(get(client, "/groups"))
    assert "north" in shown
    assert "New group" not in shown

    send(client, "/groups", {"name": "new", "query": "type=tank"})
    wrong = send(client, "/groups", {"name": "bad", "query": "type="})
    send(client, "/groups/delete", {"name": "north"})

    assert "the query ends at character 6" in wrong.text
    assert 'value="bad"' in wrong.text
    assert [each["name"] for each in platform.groups] == ["pumps", "new"]


def test_device_page_names_its_groups(client):
    assert 'href="/devices?q=group%3Dnorth">north</a>' in get(client, "/devices/greenhouse-02").text


def test_device_page_shows_values_with_units_of_the_type(client):
    shown = texts(get(client, "/devices/greenhouse-02"))

    for text in ("online", "temperature", "°C", "ppm", "vent_open", "south", "bad_syntax"):
        assert text in shown, text


def test_device_page_and_overview_show_what_devices_told_where_the_type_is_silent(client, platform):
    told = [
        {"measurement": "telemetry", "field": "co2", "unit": "told-co2", "label": "Told air"},
        {"measurement": "telemetry", "field": "vent_open", "unit": "told-vent", "label": "<b>told</b>"},
    ]
    platform.devices["greenhouse-02"] |= {"described": told}
    platform.described["greenhouse-02"] = told

    page = get(client, "/devices/greenhouse-02").text

    assert ("told-vent" in page, "told-co2" in page) == (True, False)
    assert ("Told air" in page, "&lt;b&gt;told&lt;/b&gt;" in page) == (True, True)
    platform.devices["greenhouse-02"]["type"] = None
    assert "told-co2" in get(client, "/").text


def test_device_page_charts_numbers_only(client):
    page = get(client, "/devices/greenhouse-02").text

    assert re.findall(r'class="card chart" data-field="(\w+)"', page) == ["temperature", "humidity", "co2"]


@pytest.mark.parametrize(("asked", "length_s"), [("24h", 86_400), ("1h", 3_600), ("nonsense", 3_600)])
def test_device_page_takes_known_windows(client, asked, length_s):
    assert f'data-length-s="{length_s}"' in get(client, f"/devices/greenhouse-02?window={asked}").text


def test_device_without_data_tells_what_to_type(client, platform, reader):
    platform.devices["new"] = device("new", last_seen=None, online=False)

    page = get(client, "/devices/new").text

    assert "Nothing received yet" in page
    assert "-t devices/new/telemetry" in page
    assert "never" in page


def test_device_page_without_ingest_still_shows_values(client, platform):
    platform.away.add("ingest")

    page = get(client, "/devices/greenhouse-02")

    assert page.status_code == 200
    assert "temperature" in page.text
    assert "ingest service does not answer" in page.text


def test_unknown_device_is_a_friendly_404(client):
    page = get(client, "/devices/nobody")

    assert page.status_code == 404
    assert page.mimetype == "text/html"
    assert "Nothing here" in page.text


def test_registry_away_is_a_friendly_503(client, platform):
    get(client, "/devices")  # the token is remembered
    platform.away.add("devices")

    page = get(client, "/devices")

    assert page.status_code == 503
    assert page.headers["Retry-After"]
    assert "Part of the platform is away" in page.text


def test_store_away_is_a_friendly_503(client, reader):
    reader.is_away = True

    assert "Part of the platform is away" in get(client, "/devices/greenhouse-02").text


def test_quarantine_shows_reason_and_bytes(client):
    shown = get(client, "/quarantine").text

    assert "type_conflict" in shown
    assert "&#34;temperature&#34;: &#34;warm&#34;" in shown
    assert "80 81 82" in shown
    assert "<script>document" not in shown


def test_viewer_sees_no_replay_and_operator_does(client):
    assert "/quarantine/replay" not in get(client, "/quarantine").text
    assert "/quarantine/replay" in get(client, "/quarantine", OPERATOR).text


def test_replay_asks_with_the_operators_token_and_tells_the_outcome(client, platform):
    answer = client.post("/quarantine/replay", data={"id": "901", "device": "d1"}, headers=OPERATOR)

    assert (answer.status_code, platform.replays) == (303, [{"ids": ["901"]}])
    assert platform.calls[-1] == ("POST", "/v1/quarantine:replay", "operator-token")
    assert answer.headers["Location"] == "/quarantine?device=d1&replayed=1&failed=0&more=0"
    assert "1 replayed" in texts(get(client, answer.headers["Location"]))


def test_replay_of_a_filter_sends_the_filter(client, platform):
    client.post("/quarantine/replay", data={"device": "d1", "code": "bad_syntax"}, headers=OPERATOR)

    assert platform.replays == [{"filter": {"device": "d1", "code": "bad_syntax"}}]


def test_empty_quarantine_says_how_to_try_it(client, platform):
    platform.quarantine.clear()

    assert "not json" in get(client, "/quarantine").text


def test_pages_ask_with_the_callers_own_token(client, platform):
    get(client, "/devices")

    assert ("GET", "/v1/devices", "viewer-token") in platform.calls


def test_hostile_text_is_escaped_on_every_page(client, platform, reader):
    name = "d-1"
    platform.devices[name] = device(name, type=HOSTILE, tags={"site": HOSTILE, HOSTILE: "x"})
    platform.types[HOSTILE] = {"fields": {HOSTILE: {"unit": HOSTILE, "description": HOSTILE}}}
    platform.quarantine.append(quarantined("9", name, HOSTILE.encode(), code=HOSTILE, detail=HOSTILE, protocol=HOSTILE))
    reader.points.append(Point(name, HOSTILE, now_ns(), {HOSTILE: HOSTILE, "n" + HOSTILE: 1.0}))

    for path in (
        "/",
        "/devices",
        f"/devices/{name}",
        "/quarantine",
        "/quarantine?device=%22%3E%3Cimg",
        "/devices?q=%22%3E%3Cimg",
    ):
        page = get(client, path, OPERATOR)
        assert page.status_code == 200
        assert "<img src=x" not in page.text, path
        assert "'{{7*7}}</script>" not in page.text, path
        assert "49" not in re.findall(r"'(\d+)", page.text), path


def test_quarantined_message_without_device_is_shown(client, platform):
    platform.quarantine = [quarantined("1", "", b"")]

    shown = get(client, "/quarantine").text

    assert "unknown device" in shown
    assert "The message was empty" in shown


def test_overview_shows_each_type_not_one_in_alphabetical_order(client, platform):
    shown = get(client, "/").text

    kinds = {found["type"] for found in platform.devices.values() if found.get("online")}
    for kind in kinds:
        first = min(name for name, found in platform.devices.items() if found["type"] == kind and found["online"])
        assert f'data-device="{first}"' in shown


@pytest.mark.parametrize(("age_s", "length_s"), [(60, 900), (7_200, 3_600)])
def test_charts_of_a_new_device_begin_with_a_short_span(client, platform, age_s, length_s):
    platform.devices["greenhouse-02"]["created"] = format_ns(now_ns() - age_s * 10**9)

    assert f'data-length-s="{length_s}"' in get(client, "/devices/greenhouse-02").text


def test_overview_counts_what_never_came(client):
    assert "never received: 12 , of 3 devices" in texts(get(client, "/"))


def test_device_shows_its_numbers_by_boot(client):
    shown = texts(get(client, "/devices/greenhouse-02"))

    for text in (
        "17 current",
        "1 \N{EN DASH} 5120",
        "7, 100\N{EN DASH}110",
        "16 counted anew",
        "400",
        "…",
        "4 boots before these",
    ):
        assert text in shown, text


def test_device_that_numbers_nothing_is_told_how(client):
    assert "does not number its readings" in texts(get(client, "/devices/greenhouse-01"))


def test_device_without_ingest_says_that_delivery_is_unknown(client, platform):
    platform.away.add("ingest")

    assert "it is not known what arrived" in texts(get(client, "/devices/greenhouse-02"))
