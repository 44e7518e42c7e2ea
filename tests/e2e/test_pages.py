"""Every page of a running installation as people meet it: by eye, by screen reader, by keyboard, on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.dashboard_api.chromium import Browser
from tests.e2e.pages import GATEWAY, TYPE, pages
from tests.e2e.platform import Installation
from tests.support.pictures import picture
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.browser]

ROOT = Path(__file__).parents[2]
AXE = ROOT / ".venv" / "axe.min.js"
FACES = ("/no-such-page", "/devices?q=type%3D", "/devices?q=nothing-like-it", f"/devices/{GATEWAY}?window=7d",
         f"/types/{TYPE}?version=1", "/types/new?name=page-new", "/devices/page-silent", "/devices/page-silent/access",
         "/audit?kind=none")  # fmt: skip
TAB_STOPS = 120
RUN_AXE = """axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) => violations
  .filter((each) => ["serious", "critical"].includes(each.impact))
  .map((each) => `${each.id}: ${each.help}: ${each.nodes.slice(0, 3).map((node) => node.html.slice(0, 160)).join(" | ")}`))"""
KEYS = {"Tab": ("Tab", 9, ""), "Enter": ("Enter", 13, "\r"), "Space": (" ", 32, " ")}


@pytest.fixture(scope="module")
def filled(installation: Installation) -> Installation:
    """An installation with something to show on each page."""
    gateway = installation.add_device(GATEWAY, gateway=True, tags={"site": "a", "a-long-name-of-a-tag": "x" * 60})
    installation.add_device("page-silent", tags={"site": "b"})
    described = {
        "fields": {"temp": {"type": "float", "unit": "Cel", "min": -40, "max": 85, "description": "of the air"}}
    }
    for body in (described, described | {"unknown_fields": "drop", "description": "what a page shows"}):
        assert installation.call("PUT", f"/v1/device-types/{TYPE}", body).status in (200, 201)
    posts: list[tuple[str, Any]] = [
        ("/v1/groups", {"name": "page-group", "query": "tag.site=a", "description": "those of the first site"}),
        ("/v1/tenants", {"id": "page-tenant"}),
        ("/v1/tokens", {"name": "page-token", "role": "viewer", "scope": ["devices:read", "query:*"]}),
        ("/v1/invitations", {"name": "page-guest", "role": "viewer"}),
        ("/v1/operators", {"name": "page-person", "password": "correct battery staple", "role": "admin"}),
        ("/v1/enrolments", {"name": "page-enrolment", "kind": "token"}),
        ("/v1/enrolments", {"name": "page-batch", "kind": "group"}),
        (f"/v1/devices/{GATEWAY}/commands", {"name": "blink", "params": {"times": 3}}),
    ]  # fmt: skip
    for path, body in posts:
        assert installation.call("POST", path, body).status in (201, 202), path
    installation.call("PATCH", f"/v1/devices/{GATEWAY}/twin/desired", {"every_s": 5})
    for number in range(5):
        installation.post(
            gateway, b'{"boot_id":"1","seq":%d,"values":{"temp":%d,"door":"open"}}' % (number * 2, number)
        )
    installation.post(gateway, b'{"temp":"warm"}')
    for content in (picture("PNG", 640, 480), b"a log"):
        assert installation.post(gateway, content, "/v1/media?channel=front").status == 201
    installation.post(gateway, b'{"temp":')
    wait_until(lambda: installation.points(GATEWAY), 10)
    wanted = {"spec": {"fields": {"temp": {"max": -1}}}, "devices": [GATEWAY]}
    job = installation.call("POST", f"/v1/device-types/{TYPE}:dry-run", wanted).body["id"]
    wait_until(lambda: installation.get(f"/v1/jobs/{job}")["state"] == "done", 10)
    return installation


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    browser.call("Emulation.setFocusEmulationEnabled", enabled=True)
    yield browser
    browser.close()


@pytest.fixture
def browser(chromium: Browser, filled: Installation) -> Browser:
    chromium.call("Network.clearBrowserCookies")
    chromium.log_in(filled.url, filled.token)
    chromium.shape(1280)
    chromium.console.clear()
    return chromium


def test_pages_are_all_there() -> None:
    assert len(pages()) > 15
    assert AXE.exists(), "./test fetches it"


@pytest.mark.parametrize("path", [*pages(), *FACES])
def test_page_is_accessible_and_fits_a_phone(browser: Browser, filled: Installation, path: str) -> None:
    found = []
    for width, is_dark in ((1280, False), (390, True)):
        browser.shape(width, dark=is_dark)
        browser.open(filled.url + path)
        browser.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        browser.run(AXE.read_text())
        found += [(width, fault) for fault in browser.run(RUN_AXE)]
        wide = browser.run("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        found += [(width, f"{wide} pixels too wide")] if wide > 0 else []

    assert found == []
    assert [line for line in browser.console if "404" not in line and "400" not in line] == []
    assert browser.run("document.title").endswith("Headwater")
    assert browser.run("document.querySelectorAll('h1').length") == 1


def test_pages_fit_for_somebody_of_the_platform_in_a_tenant(browser: Browser, filled: Installation) -> None:
    wanted = {"name": "somebody-with-a-long-name", "role": "platform"}
    token = filled.call("POST", "/v1/tokens", wanted).body["token"]
    browser.call("Network.clearBrowserCookies")
    browser.log_in(filled.url, f"{token}@page-tenant")

    found = []
    for path in (path for path in pages() if path.count("/") == 1):
        browser.open(filled.url + path)
        for width in (1280, 900, 390):
            browser.shape(width)
            wide = browser.run("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            found += [(path, width, wide)] if wide > 0 else []
        browser.shape(1280)
        lines = "new Set([...document.querySelectorAll('.nav a')].map((each) => each.offsetTop)).size"
        found += [(path, "lines", count)] if (count := browser.run(lines)) > 1 else []

    assert found == []


def press(browser: Browser, name: str) -> None:
    key, code, text = KEYS[name]
    given = {"key": key, "code": name, "windowsVirtualKeyCode": code}
    browser.call("Input.dispatchKeyEvent", type="keyDown", **(given | ({"text": text} if text else {})))
    browser.call("Input.dispatchKeyEvent", type="keyUp", **given)


def tab_to(browser: Browser, selector: str) -> None:
    """Go there by Tab alone; where it stops must be seen."""
    for _ in range(TAB_STOPS):
        if browser.run(f"document.activeElement?.matches({selector!r})"):
            style = "getComputedStyle(document.activeElement)"
            assert browser.run(f"{style}.outlineStyle !== 'none' || {style}.boxShadow !== 'none'"), selector
            return
        press(browser, "Tab")
    raise AssertionError(f"{selector} is not reached by Tab")


def write(browser: Browser, selector: str, text: str) -> None:
    tab_to(browser, selector)
    browser.run("document.activeElement.select()")
    browser.call("Input.insertText", text=text)


def test_log_in_and_out_by_keyboard(browser: Browser, filled: Installation) -> None:
    browser.call("Network.clearBrowserCookies")
    browser.open(f"{filled.url}/types")

    write(browser, "[name=name]", "page-person")
    write(browser, "[name=password]", "correct battery staple")
    press(browser, "Enter")

    browser.until("location.pathname === '/types' && document.readyState === 'complete'")
    tab_to(browser, "form[action='/logout'] button")
    press(browser, "Enter")
    browser.until("location.pathname === '/login'")


def test_query_and_bulk_action_by_keyboard(browser: Browser, filled: Installation) -> None:
    browser.open(f"{filled.url}/devices")

    write(browser, "[name=q]", "id=page-silent")
    press(browser, "Enter")
    browser.until("document.querySelectorAll('tr[data-device]').length === 1 && document.readyState === 'complete'")
    tab_to(browser, "[data-select='page-silent']")
    press(browser, "Space")
    browser.run("document.querySelector('[data-selection] input').focus()")  # the way back is Shift+Tab
    tab_to(browser, "[data-bulk-open]")
    press(browser, "Enter")
    browser.until("document.querySelector('dialog[open]') && !document.querySelector('[data-bulk-go]').disabled")
    write(browser, "dialog [name=key]", "walked")
    write(browser, "dialog [name=value]", "yes")
    tab_to(browser, "[data-bulk-go]")
    press(browser, "Enter")

    wait_until(lambda: filled.get("/v1/devices/page-silent")["tags"].get("walked") == "yes", 10)
    browser.until("document.activeElement.matches('[data-bulk-close]')")
    press(browser, "Enter")
    browser.until("document.querySelector('dialog[open]') === null")


def test_twin_and_command_by_keyboard(browser: Browser, filled: Installation) -> None:
    browser.open(f"{filled.url}/devices/page-silent")
    browser.until("document.querySelector('#desired').value !== ''")

    write(browser, "#desired", '{"lamp": "on"}')
    tab_to(browser, "[data-twin] [type=submit]")
    press(browser, "Enter")
    wait_until(lambda: filled.get("/v1/devices/page-silent/twin")["desired"] == {"lamp": "on"}, 10)
    write(browser, "#command-name", "reboot")
    press(browser, "Enter")

    browser.until("document.querySelector('[data-commands]').textContent.includes('reboot')")


def test_type_is_edited_and_tried_by_keyboard(browser: Browser, filled: Installation) -> None:
    browser.open(f"{filled.url}/types/{TYPE}/edit")
    browser.until("!document.querySelector('#form').hidden")

    tab_to(browser, "[data-add]")
    press(browser, "Enter")
    browser.until("document.activeElement.matches('input')")
    browser.call("Input.insertText", text="walked_field")
    tab_to(browser, "[value=check]")
    press(browser, "Enter")

    browser.until("document.querySelector('#report')?.textContent.includes('walked_field')")


def choose(browser: Browser, selector: str, first_letter: str) -> None:
    """Choose in a list by the letter that the option begins with."""
    tab_to(browser, selector)
    browser.call("Input.dispatchKeyEvent", type="keyDown", key=first_letter, text=first_letter)
    browser.call("Input.dispatchKeyEvent", type="keyUp", key=first_letter)


def send(browser: Browser, selector: str, word: str) -> None:
    """Press a button and wait for the page that comes, which has a word in it."""
    browser.run("window.isOld = true")
    tab_to(browser, selector)
    press(browser, "Enter")
    browser.until(f"!window.isOld && document.readyState === 'complete' && document.body.innerText.includes({word!r})")


def test_columns_are_chosen_by_keyboard(browser: Browser, filled: Installation) -> None:
    browser.open(f"{filled.url}/devices")

    tab_to(browser, ".query-help + .query-help summary")
    press(browser, "Enter")
    tab_to(browser, "[name=columns][value=fw]")
    press(browser, "Space")
    write(browser, "input[type=text][name=columns]", "tag.site")
    send(browser, ".column-choice button", "Firmware")

    assert browser.run("document.querySelector('thead').innerText.includes('site')")


def test_enrolment_is_opened_and_closed_by_keyboard(browser: Browser, filled: Installation) -> None:
    browser.open(f"{filled.url}/enrolment")

    write(browser, "[action='/enrolment/create'] [name=name]", "walked-hall")
    choose(browser, "[name=kind]", "g")
    write(browser, "[action='/enrolment/create'] [name=ids]", "hall-*")
    tab_to(browser, "[action='/enrolment/create'] [name=hold]")
    press(browser, "Space")
    send(browser, "[action='/enrolment/create'] [type=submit]", "walked-hall")
    assert browser.run("document.querySelector('[aria-label=Secret]').innerText.length > 40")
    made = next(each for each in filled.get("/v1/enrolments")["items"] if each["name"] == "walked-hall")
    assert (made["kind"], made["ids"], made["policy"]) == ("group", "hall-*", "hold")

    tab_to(browser, "[aria-label='Close walked-hall']")
    press(browser, "Enter")
    ways = "/v1/enrolments?limit=100"
    wait_until(
        lambda: made["id"] not in [each["id"] for each in filled.get(ways)["items"] if each["state"] == "open"], 10
    )


def test_group_is_made_and_deleted_by_keyboard(browser: Browser, filled: Installation) -> None:
    browser.open(f"{filled.url}/groups")

    write(browser, "[action='/groups'] [name=name]", "walked-group")
    write(browser, "[action='/groups'] [name=query]", "gateway")
    send(browser, "[action='/groups'] [type=submit]", "walked-group")
    send(browser, "[aria-label='Delete group walked-group']", "New group")

    assert "walked-group" not in [each["name"] for each in filled.get("/v1/groups")["items"]]


def test_people_and_tokens_are_managed_by_keyboard(browser: Browser, filled: Installation) -> None:
    browser.open(f"{filled.url}/people")

    write(browser, "[name=name]", "walked-guest")
    choose(browser, "[name=role]", "o")
    send(browser, "[action='/people/create'] [type=submit]", "/invitation?token=")
    write(browser, "form:has([name=scope]) [name=name]", "walked-token")
    write(browser, "[name=scope]", "devices:read")
    send(browser, "form:has([name=scope]) [type=submit]", "walked-token")

    invited = next(each for each in filled.get("/v1/invitations")["items"] if each["name"] == "walked-guest")
    token = next(each for each in filled.get("/v1/tokens")["items"] if each["name"] == "walked-token")
    assert (invited["role"], token["scope"]) == ("operator", ["devices:read"])


def test_tenant_is_made_suspended_and_deleted_by_keyboard(browser: Browser, filled: Installation) -> None:
    browser.open(f"{filled.url}/tenants")

    write(browser, "[action='/tenants/change'] [name=id]", "walked-tenant")
    send(browser, "[action='/tenants/change'] .primary", "walked-tenant")
    send(browser, "[aria-label='Suspend: walked-tenant']", "suspended")
    send(browser, "[aria-label='Delete: walked-tenant']", "Tenants")

    assert "walked-tenant" not in [each["id"] for each in filled.get("/v1/tenants")["items"]]


def test_audit_is_searched_by_keyboard(browser: Browser, filled: Installation) -> None:
    browser.open(f"{filled.url}/audit")

    write(browser, "[name=action]", "type.")
    send(browser, "[role=search] [type=submit]", "type.create")
    assert browser.run(
        "[...document.querySelectorAll('.entry strong')].every((each) => each.innerText.startsWith('type.'))"
    )
    tab_to(browser, ".entry summary")
    press(browser, "Enter")

    browser.until("document.querySelector('.entry details').open")


def test_access_of_a_device_is_managed_by_keyboard(browser: Browser, filled: Installation) -> None:
    filled.add_device("page-walked")
    browser.open(f"{filled.url}/devices/page-walked/access")

    write(browser, "[name=label]", "walked")
    send(browser, "[value=add]", "shown only this once")
    credentials = filled.get("/v1/devices/page-walked/credentials")["items"]
    write(browser, "[name=confirm]", "page-walked")
    send(browser, "[value=disable]", "disabled")

    assert "walked" in [each["label"] for each in credentials]
    assert filled.get("/v1/devices/page-walked")["state"] == "disabled"
