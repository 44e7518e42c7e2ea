"""The pages as a person sees them: Chromium against the dashboard under gunicorn, its feed flowing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import orjson
import pytest

from tests.dashboard_api.chromium import Browser
from tests.dashboard_api.conftest import Broker, Dashboard
from tests.dashboard_api.fakes import PASSWORD, TOKENS, device, point_of, quarantined
from tests.support.waiting import wait_until
from wire.clock import now_ns
from wire.points import Point, point_to_json

pytestmark = pytest.mark.browser
HOSTILE = '"><img src=x onerror="document.title=\'owned\'">'


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture
def browser(chromium: Browser, dashboard: Dashboard) -> Iterator[Browser]:
    chromium.call("Network.clearBrowserCookies")
    chromium.log_in(dashboard.url, TOKENS["operator"])
    chromium.shape(1280)
    chromium.console.clear()
    yield chromium
    chromium.open("about:blank#")


@pytest.fixture
def flowing(broker: Broker) -> Iterator[None]:
    """A point of greenhouse-02 each 50 ms."""
    is_over = threading.Event()

    def flow() -> None:
        while not is_over.wait(0.05):
            point = point_of("greenhouse-02", "greenhouse", now_ns())
            broker.publish(orjson.dumps({"points": [point_to_json(point)]}))

    thread = threading.Thread(target=flow)
    thread.start()
    yield
    is_over.set()
    thread.join()


@pytest.mark.parametrize("width", [1280, 360])
def test_long_names_and_numbers_stay_within_their_places(browser, dashboard, width):
    dashboard.platform.devices["long"] = device("long", tags={"a-tag-with-a-long-name": "x" * 64})
    dashboard.writer.write(
        [Point("long", "telemetry", now_ns(), {"a_name_without_end_" * 4: 2.5, "count": 123456789.4})]
    )
    browser.shape(width)
    try:
        browser.open(f"{dashboard.url}/devices/long")
        browser.until("document.querySelectorAll('.chart canvas').length === 2")

        assert browser.run("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
        wide = "[...document.querySelectorAll('.card, .tag, .value-tile')].filter((e) => e.scrollWidth > e.clientWidth)"
        assert browser.run(f"{wide}.map((each) => each.outerHTML)") == []
        assert "123456789" in browser.run("document.querySelector('.charts').textContent")
    finally:
        del dashboard.platform.devices["long"]


def test_log_in_by_hand_leads_to_the_page_asked_for(browser, dashboard):
    browser.call("Network.clearBrowserCookies")
    browser.open(f"{dashboard.url}/devices?q=pump")

    assert browser.run("location.pathname + location.search") == "/login?next=%2Fdevices%3Fq%3Dpump"
    browser.run(f"document.querySelector('[name=name]').value = 'admin';"
                f"document.querySelector('[name=password]').value = '{PASSWORD}';"
                f"document.querySelector('form').requestSubmit()")  # fmt: skip

    browser.until(
        "location.pathname + location.search === '/devices?q=pump' && document.querySelectorAll('tr[data-device]').length === 5"
    )


def test_log_out_button_ends_the_session(browser, dashboard):
    dashboard.platform.sessions["to-end"] = "viewer"
    browser.log_in(dashboard.url, "to-end")
    browser.open(dashboard.url)

    browser.run("document.querySelector('form[action=\"/logout\"]').requestSubmit()")

    browser.until("location.pathname === '/login' && document.readyState === 'complete'")
    assert "to-end" not in dashboard.platform.sessions


def test_session_that_ends_leads_back_to_the_log_in(browser, dashboard):
    dashboard.platform.sessions["ending"] = "viewer"
    browser.log_in(dashboard.url, "ending")
    browser.open(f"{dashboard.url}/devices")
    browser.until("document.querySelector('[data-live]').dataset.live === 'on'")

    del dashboard.platform.sessions["ending"]

    browser.until("location.pathname === '/login'")


def test_overview_goes_on_living(browser, dashboard, flowing):
    browser.open(dashboard.url)
    browser.until("document.querySelector('[data-live]').dataset.live === 'on'")
    browser.until("document.querySelector('#rate-plot canvas') !== null")

    dashboard.platform.ledger["quarantined"] += 1_000

    browser.until("document.querySelector('[data-figure=quarantined]').textContent.startsWith('1,0')")
    dashboard.platform.ledger["quarantined"] -= 1_000


def test_device_page_draws_history_and_goes_on(browser, dashboard, flowing):
    browser.open(f"{dashboard.url}/devices/greenhouse-02")

    browser.until("document.querySelectorAll('.chart canvas').length === 3")
    browser.until("[...document.querySelectorAll('.value-tile time')].every((time) => time.textContent === 'now')")
    before = browser.run("document.querySelector('.value-tile time').dateTime")
    browser.until(f"document.querySelector('.value-tile time').dateTime > '{before}'")


def test_live_values_do_not_move_the_page(browser, dashboard, flowing):
    browser.open(f"{dashboard.url}/devices/greenhouse-02")
    browser.run("window.shifts = 0; new PerformanceObserver((list) => { for (const each of list.getEntries()) window.shifts += each.value; })"
                ".observe({ type: 'layout-shift', buffered: true })")  # fmt: skip

    browser.until("document.querySelectorAll('.chart canvas').length === 3")
    first = browser.run("document.querySelector('.value-tile time').dateTime")
    browser.until(f"document.querySelector('.value-tile time').dateTime > '{first}'")

    assert browser.run("window.shifts") < 0.02


def test_hostile_names_and_values_stay_text(browser, dashboard, broker):
    dashboard.platform.devices["evil"] = device("evil", type=HOSTILE, tags={"site": HOSTILE})
    dashboard.platform.types[HOSTILE] = {"fields": {}}
    dashboard.platform.quarantine.append(quarantined("99", "evil", HOSTILE.encode(), detail=HOSTILE))
    dashboard.writer.write([Point("evil", "telemetry", now_ns(), {HOSTILE: HOSTILE, "n": 1.0})])
    try:
        for path in ("/devices?q=evil", "/devices/evil", "/quarantine", f"/devices?q={quote(HOSTILE)}"):
            browser.open(dashboard.url + path)
            assert browser.run("document.title") != "owned"
            assert browser.run("document.querySelectorAll('img[src=x]').length") == 0
        browser.open(f"{dashboard.url}/devices/evil")
        browser.until("document.querySelector('[data-live]').dataset.live === 'on'")
        live = Point("evil", "telemetry", now_ns(), {HOSTILE: HOSTILE + "2", "n": 2.0})
        broker.publish(orjson.dumps({"points": [point_to_json(live)]}))
        browser.until("[...document.querySelectorAll('[data-value]')].some((each) => each.textContent.endsWith('2'))")
        assert browser.run("document.querySelectorAll('img[src=x]').length") == 0
        assert browser.run("document.title") != "owned"
        assert [line for line in browser.console if "Content Security" in line] == []
    finally:
        del dashboard.platform.devices["evil"]
        dashboard.platform.quarantine.pop()


@pytest.mark.parametrize("path", ["/", "/devices", "/devices/greenhouse-02", "/quarantine", "/docs"])
def test_page_can_be_read_without_scripts(browser, dashboard, path):
    expected = {"/": "18", "/devices": "pump-20", "/quarantine": "type_conflict", "/docs": "/v1/query/range"}
    browser.shape(1280, scripts=False)
    try:
        browser.call("Page.navigate", url=dashboard.url + path)
        wait_until(lambda: "Log out" in browser.html(), what="the page")
        assert expected.get(path, "temperature") in browser.html()
    finally:
        browser.shape(1280)


def test_photographs_can_be_taken(browser, dashboard, tmp_path: Path):
    browser.open(dashboard.url)

    browser.photograph(tmp_path / "overview.png")

    assert (tmp_path / "overview.png").stat().st_size > 20_000


def test_delays_and_gaps_are_renewed(browser, dashboard, broker):
    told = {"json/mqtt": {"p50": 0.02, "p95": 0.05, "p99": 0.126}}
    browser.open(dashboard.url)

    def is_shown() -> bool:
        broker.publish(orjson.dumps({"points": [], "delays": told}))
        return "126" in browser.run("document.querySelector('[data-delays]').innerText")

    wait_until(is_shown, 15, "the delays")
    assert browser.run("document.querySelector('[data-gaps=devices]').innerText") == "3"
