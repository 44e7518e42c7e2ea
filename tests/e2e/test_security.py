"""Someone tries the doors of a running installation: each row of the list in docs/security.md that needs all of it."""

from __future__ import annotations

import base64
import gzip
import json
import re
import socket
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import urllib3
import websocket
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compose import procfs
from tests.e2e.pages import pages
from tests.e2e.platform import Device, Installation
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e

COOKIE = "headwater_session"
EVIL = "https://evil.example"
INLINE = re.compile(
    r"<script(?![^>]*\ssrc=)|\son[a-z]+\s*=|\sstyle\s*=|javascript:|\ssrc=[\"']?(https?:)?//", re.IGNORECASE
)
RSS_GROWTH_KB = 50_000


def session_of(installation: Installation, name: str = "guard", password: str = "a long enough secret") -> str:
    """Log in as a person, as a browser does, and give the cookie's value."""
    installation.call("POST", "/v1/operators", {"name": name, "password": password, "role": "operator"})
    answer = log_in(installation, name, password)
    assert answer.status == 303, answer.data
    return re.findall(rf"{COOKIE}=([^;]+)", answer.headers["Set-Cookie"])[0]


def log_in(installation: Installation, name: str, password: str, **headers: str) -> urllib3.BaseHTTPResponse:
    form = urlencode({"name": name, "password": password}).encode()
    sent = {"Content-Type": "application/x-www-form-urlencoded"} | headers
    url = f"{installation.url}/login"
    return urllib3.request("POST", url, body=form, headers=sent, redirect=False, retries=False)


def test_password_of_a_session_is_of_no_use_to_another_site(installation: Installation) -> None:
    cookie = f"{COOKIE}={session_of(installation)}"
    given_headers: list[dict[str, str]] = [
        {}, {"Origin": EVIL}, {"Origin": "null"}, {"Origin": f"{installation.url}.evil.example"},
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
    ]  # fmt: skip

    changes = [
        installation.call("POST", "/v1/groups", {"name": "forged"}, Authorization="", Cookie=cookie, **headers).status
        for headers in given_headers
    ]

    assert changes == [403] * len(given_headers)
    own = installation.call(
        "POST", "/v1/groups", {"name": "ours"}, Authorization="", Cookie=cookie, Origin=installation.url
    )
    assert own.status == 201


def test_cookie_is_for_this_site_and_no_script(installation: Installation) -> None:
    session_of(installation)

    cookie = log_in(installation, "guard", "a long enough secret").headers["Set-Cookie"]

    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert log_in(installation, "guard", "a long enough secret", Origin=EVIL).status == 403


def test_feed_takes_nobody_from_another_site(installation: Installation) -> None:
    url, cookie = f"ws://127.0.0.1:{installation.port}/v1/feed", f"{COOKIE}={session_of(installation)}"
    refused = []

    for more in (
        {"origin": EVIL, "cookie": cookie},
        {"suppress_origin": True, "cookie": cookie},
        {"origin": installation.url},
    ):
        with pytest.raises(websocket.WebSocketBadStatusException) as told:
            websocket.create_connection(url, timeout=5, **more)
        refused.append(told.value.status_code)

    assert refused == [403, 403, 401]
    websocket.create_connection(url, timeout=5, origin=installation.url, cookie=cookie).close()


@pytest.mark.parametrize("path", pages())
def test_page_has_no_inline_script_and_is_kept_nowhere(installation: Installation, path: str) -> None:
    answer = installation.call("GET", path)

    policy = answer.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["Cache-Control"] == "no-store"
    assert INLINE.findall((answer.body or b"").decode()) == []


def test_no_other_site_may_read_an_answer(installation: Installation) -> None:
    answers = [installation.call(method, "/v1/devices", None, Origin=EVIL) for method in ("GET", "OPTIONS")]

    assert [name for answer in answers for name in answer.headers if name.lower().startswith("access-control")] == []
    assert answers[0].headers["Cache-Control"] == "no-store"


def pids(installation: Installation) -> list[int]:
    """All processes of the installation, their workers too."""
    mains = [procfs.look(process["pid"]) for process in installation.status()["processes"] if process["pid"]]
    return [each.pid for main in mains if main for each in procfs.members(main.pid, main.start_ticks)]


def peaks_kb(installation: Installation) -> dict[int, int]:
    told = {pid: Path(f"/proc/{pid}/status").read_text() for pid in pids(installation)}
    return {pid: int(found[1]) for pid, text in told.items() if (found := re.search(r"VmHWM:\s+(\d+)", text))}


def bombs() -> dict[str, tuple[bytes, str]]:
    """Small enough for the gateway, all of them: it is the services that are tried."""
    return {
        "100 MB of spaces": (gzip.compress(b" " * 100_000_000), "gzip"),
        "gzip in gzip": (gzip.compress(gzip.compress(b"[" * 100_000_000)), "gzip"),
        "a million brackets": (b"[" * 1_000_000, "identity"),
        "90,000 members": (b"{" + b",".join(b'"k%d":1' % n for n in range(90_000)) + b"}", "identity"),
        "integers of 4,000 digits": (b"[" + b",".join([b'{"a":' + b"9" * 4000 + b"}"] * 200) + b"]", "identity"),
    }


def test_bombs_cost_a_refusal_and_no_memory(installation: Installation, device: Device) -> None:
    installation.post(device, b'{"a":"' + b"x" * 200_000 + b'"}')
    before = peaks_kb(installation)

    for name, (content, encoding) in bombs().items():
        assert len(content) < 2**20
        own = installation.post(device, content, Content_Encoding=encoding)
        others = [
            installation.call("POST", path, content, Content_Encoding=encoding)
            for path in ("/v1/devices", "/v1/device-types:install", "/v1/devices:import", "/v1/devices:bulk")
        ]
        assert {answer.status for answer in (own, *others)} <= {400, 413, 415, 422}, name

    grown = {pid: peak - before[pid] for pid, peak in peaks_kb(installation).items() if pid in before}
    assert len(grown) >= len(before) - 1
    assert max(grown.values()) < RSS_GROWTH_KB


def test_five_hundred_slow_clients_keep_nobody_waiting(installation: Installation, device: Device) -> None:
    begun = b"POST /v1/telemetry HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x.y\r\nContent-Length: 100\r\n\r\n{"
    heads = [b"GET /v1/devices HTTP/1.1\r\nHost: a\r\nX-", begun]
    slow = [socket.create_connection(("127.0.0.1", installation.port), timeout=10) for _ in range(500)]
    try:
        for number, connection in enumerate(slow):
            connection.sendall(heads[number % 2])
        answers = [installation.post(device, b'{"a":1}').status for _ in range(20)]
        pages = [installation.call("GET", path).status for path in ("/v1/devices?limit=1", "/v1/query/latest?device=x")]
        for connection in slow:
            connection.sendall(b"a")
    finally:
        for connection in slow:
            connection.close()

    assert (answers, pages) == ([202] * 20, [200] * 2)


BODY = b"0\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
SMUGGLED = [
    (framing, BODY)
    for framing in (
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b'Transfer-Encoding: "chunked"\r\n',
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n",
        b"X: a\r\n Transfer-Encoding: chunked\r\n",
        b"Content-Length: 4\r\n\x0bTransfer-Encoding: chunked\r\n",
        b"Content-Length: 4\r\nContent-Length: 5\r\n",
        b"Content-Length: 4, 4\r\n",
        b"Content-Length: 5 5\r\n",
        b"Content-Length: 1_0\r\n",
        b"Content-Length: +4\r\n",
        b"Content-Length: 0x4\r\n",
        b"Content-Length: -4\r\n",
        b"Content-Length:\r\n",
        b"Content-Length: 4\r\nContent_Length: 400\r\nX: \x00\r\n",
        b"Host: b\r\n",
    )
]
BAD_CHUNKS = [
    (CHUNKED, size + b"\r\nbody\r\n0\r\n\r\n") for size in (b"0x4", b"+4", b"-4", b"4_", b"4;a\nb", b"", b"f" * 17)
] + [(CHUNKED, b"4\r\nbodyXX0\r\n\r\n")]
# gunicorn refuses what nginx mends before it passes it on with a length.
BARE_BYTES = [
    (CHUNKED, b"4\nbody\n0\n\n"), (CHUNKED, b"4 \r\nbody\r\n0\r\n\r\n"), (CHUNKED, b"4;a=\0\r\nbody\r\n0\r\n\r\n"),
    (b"X: a\nTransfer-Encoding: chunked\r\n", BODY), (b"Content-Length: 99999999999999999999\r\n", BODY),
]  # fmt: skip


@pytest.mark.parametrize("path", ["/v1/telemetry", "/v1/devices", "/login"])
@pytest.mark.parametrize("door", ["gateway", "devices", "dashboard", "ingest-json"])
def test_request_of_two_readings_gets_one_answer_at_most(installation: Installation, door: str, path: str) -> None:
    """Through the gateway, and as nobody but a service could: straight to gunicorn's loop and gevent workers."""
    ports = json.loads((installation.data / "run/ports.json").read_text()) | {"gateway": installation.port}
    is_gateway, faults = door == "gateway", []

    for framing, body in SMUGGLED + BAD_CHUNKS + ([] if is_gateway else BARE_BYTES):
        received = smuggle(installation, ports[door], path, framing, body)
        statuses = re.findall(rb"^HTTP/1.1 (\d+)", received, re.MULTILINE)
        # A head that is read in two ways is refused; a body so late that it may have been answered for something else.
        refused = (b"400", b"501") if (framing, body) in SMUGGLED else (b"400", b"401", b"404", b"413", b"422", b"501")
        faults += [] if len(statuses) == 1 and statuses[0] in refused else [(framing, body, statuses)]

    assert faults == []


def smuggle(installation: Installation, port: int, path: str, framing: bytes, body: bytes) -> bytes:
    """Send an odd request with another one behind it, which would be answered with 200; give all that comes back."""
    inner = b"GET /v1/devices HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + installation.token.encode() + b"\r\n\r\n"
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: a\r\n".encode() + framing + b"\r\n" + body + inner)
        connection.shutdown(socket.SHUT_WR)
        while chunk := connection.recv(65_536):
            received += chunk
    return received


TEXTS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40)
HOSTILE = ['"); DROP TABLE devices;--', "' OR 1=1--", '") |> drop()', "a=1,b=2 c", "x\\", 'say "hi"\\', "\u202egpj", "{{7*7}}",
           "<script>alert(1)</script>", "%0a%00", "$(id)", "../../etc/passwd", "a\tb", "ä\u0301🦊"]  # fmt: skip


def test_odd_text_comes_back_as_it_went(installation: Installation, device: Device) -> None:
    sent: list[dict[str, str]] = [{"f": text} for text in HOSTILE]

    @settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(TEXTS)
    def gather(text: str) -> None:
        sent.append({"f": text})

    gather()
    start_ms = int(time.time() * 1_000) - 600_000
    content = [{"ts": start_ms + number, "values": values} for number, values in enumerate(sent)]

    answer = installation.post(device, json.dumps(content).encode())

    refused = {entry["index"]: entry["code"] for entry in answer.body["quarantined"]}
    assert set(refused.values()) <= {"bad_value"}
    kept = [values for number, values in enumerate(sent) if number not in refused]
    wait_until(lambda: len(installation.points(device.id)) == len(kept), 10)
    assert [point["fields"] for point in installation.points(device.id)] == kept


@pytest.mark.parametrize("text", HOSTILE)
def test_odd_text_in_a_query_is_only_text(installation: Installation, text: str) -> None:
    paths = ["/v1/query/latest?device={}", "/v1/query/range?device=d&field={}", "/v1/devices?q={}", "/v1/devices?tag=a:{}",
             "/v1/query/aggregate?device=d&field=a&fn={}&every=5m", "/v1/quarantine?device={}", "/v1/audit?actor={}",
             "/v1/commands?name={}", "/v1/devices/{}", "/devices?q={}", "/v1/groups/{}"]  # fmt: skip

    answers = [installation.call("GET", path.format(quote(text, safe=""))) for path in paths]

    assert [answer.status for answer in answers if answer.status not in (200, 400, 404, 422)] == []
    pages = [answer.body.decode() for answer in answers if isinstance(answer.body, bytes)]
    assert not any("<script>alert" in page or page == "49" for page in pages)


def test_guessing_has_to_wait_and_names_nobody(installation: Installation) -> None:
    session_of(installation, "guessed")

    known = [log_in(installation, "guessed", f"wrong {number}").status for number in range(6)]
    right = log_in(installation, "guessed", "a long enough secret").status
    unknown = [log_in(installation, "nobody-of-this-name", f"wrong {number}").status for number in range(6)]

    assert known == unknown == [401] * 5 + [429]
    assert right == 429


USUAL = [("admin", "admin"), ("admin", "password"), ("admin", ""), ("root", "root"), ("guest", "guest"), ("user", "user"),
         ("admin", "public"), ("sysadmin@thingsboard.org", "sysadmin"), ("tenant@thingsboard.org", "tenant"),
         ("mosquitto", "mosquitto"), ("headwater", "headwater"), ("test", "test"), ("pi", "raspberry")]  # fmt: skip


def test_pairs_that_anybody_tries_first_open_no_door_of_a_fresh_installation(installation: Installation) -> None:
    found = []
    for name, password in USUAL:
        pair = base64.b64encode(f"{name}:{password}".encode()).decode()
        posted = installation.call("POST", "/v1/telemetry", b"{}", Authorization=f"Basic {pair}")
        command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(installation.mqtt), "-u", name, "-P", password]
        published = subprocess.run([*command, "-t", "a", "-m", "b"], capture_output=True, timeout=20, check=False)
        told = log_in(installation, name, password).status, posted.status, published.returncode != 0
        found += [(name, told)] if not {401, 422, 429}.issuperset(told[:2]) or not told[2] else []

    assert found == []


def test_doors_are_on_this_machine_only(installation: Installation) -> None:
    mine = set(pids(installation))
    listing = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout.splitlines()

    listeners = [line.split()[3] for line in listing if mine & {int(pid) for pid in re.findall(r"pid=(\d+)", line)}]

    assert len(listeners) >= 5
    assert [address for address in listeners if not address.startswith("127.0.0.1:")] == []


def test_all_that_brought_no_process_down(installation: Installation) -> None:
    status: Any = installation.status()

    assert status["ready"]
    assert [process["name"] for process in status["processes"] if process["restarts"]] == []
    assert "request_fault" not in installation.output()
    assert "worker_fault" not in installation.output()
